"""A batch source whose every batch is known to fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trt_ptq.errors import DataError
from trt_ptq.types import Array, Batch, BatchSource, TensorSpec


@dataclass(frozen=True)
class ValidatedSource:
    """Passes batches on after checking names, dtypes, shapes, samples and values against the model's inputs.

    With `allow_nonfinite`, NaN and infinity in the inputs pass.
    """

    source: BatchSource
    inputs: tuple[TensorSpec, ...]
    allow_nonfinite: bool = False

    @property
    def total(self) -> int | None:
        return self.source.total

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches.

        Raises:
            DataError: on the first batch that does not fit, naming it, the input and what was expected; or when
                there is no batch at all.
        """
        empty = True
        for batch in self.source:
            empty = False
            _check_batch(batch, self.inputs)
            if not self.allow_nonfinite:
                _check_finite(batch)
            yield batch
        if empty:
            again = " (a function must yield them anew each time it is called)" if self.source.total is None else ""
            raise DataError(f"the data has no batches{again}")


def _check_batch(batch: Batch, inputs: tuple[TensorSpec, ...]) -> None:
    wanted = {one.name for one in inputs}
    if batch.feeds.keys() != wanted:
        missing = ", ".join(sorted(wanted - batch.feeds.keys()))
        unknown = ", ".join(sorted(repr(name) for name in batch.feeds.keys() - wanted))
        told = "; ".join([f"{unknown} unknown"] * bool(unknown) + [f"{missing} missing"] * bool(missing))
        raise DataError(f"{batch.origin}: wrong input names ({told}): the model takes {', '.join(map(str, inputs))}")
    for one in inputs:
        array = batch.feeds[one.name]
        if array.dtype != one.dtype:
            raise DataError(
                f"{batch.origin}: input {one.name!r} is {array.dtype}, the model takes {one.dtype}: "
                f"convert it with .astype(numpy.{one.dtype})"
            )
        if one.shape is not None and not _fits(array, one.shape):
            remedy = _remedy(array, one.shape)
            raise DataError(
                f"{batch.origin}: input {one.name!r} has shape {list(array.shape)}, the model takes {one}{remedy}"
            )
        if not array.size:
            raise DataError(f"{batch.origin}: input {one.name!r} is empty: shape {list(array.shape)}")
    _check_samples(batch, inputs)


def _fits(array: Array, shape: tuple[int | str, ...]) -> bool:
    return array.ndim == len(shape) and all(
        isinstance(want, str) or have == want for have, want in zip(array.shape, shape, strict=True)
    )


def _remedy(array: Array, shape: tuple[int | str, ...]) -> str:
    """What helps where nothing but a fixed number of samples differs."""
    if array.ndim and _fits(array[:0], (0, *shape[1:])):
        return f": give whole batches of {shape[0]} (where the data does not say, by --batch-size {shape[0]})"
    return ""


def _check_samples(batch: Batch, inputs: tuple[TensorSpec, ...]) -> None:
    """Inputs whose first axis has the same name, or no name, must agree in how many samples they have."""
    lengths: dict[str, dict[str, int]] = {}
    for one in inputs:
        if one.shape and isinstance(one.shape[0], str):
            lengths.setdefault(one.shape[0], {})[one.name] = batch.feeds[one.name].shape[0]
    for group in lengths.values():
        if len(set(group.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in group.items())
            raise DataError(f"{batch.origin}: ragged batch: {told} samples (first axis)")


def _check_finite(batch: Batch) -> None:
    for name, array in batch.feeds.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            index = [int(axis) for axis in np.argwhere(~np.isfinite(array))[0]]
            raise DataError(
                f"{batch.origin}: input {name!r} has {array[tuple(index)]} at {index}: "
                "remove it (calibrate and quantize can count and skip it: --nonfinite skip)"
            )
