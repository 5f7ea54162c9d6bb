"""Checks every batch against the inputs of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trt_ptq._internal.listing import counted
from trt_ptq.errors import DataError
from trt_ptq.types import Array, Batch, BatchSource, SourceView, TensorSpec, dtype_name, is_indexed


@dataclass(frozen=True)
class ValidatedSource(SourceView):
    """Yields the batches of `source` after checking names, dtypes, shapes, numbers of samples and values.

    `allow_nonfinite` permits NaN and infinity.
    """

    source: BatchSource
    inputs: tuple[TensorSpec, ...]
    allow_nonfinite: bool = False

    @property
    def total(self) -> int | None:
        return self.source.total

    def batch(self, index: int) -> Batch:
        """Batch `index`; only for an indexed source.

        Raises:
            DataError: the batch does not fit the model.
        """
        assert is_indexed(self.source)
        return self._validated(self.source.batch(index))

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches.

        Raises:
            DataError: a batch does not fit the model (names the batch, the input and what was expected), or there is
                no batch.
        """
        empty = True
        for batch in self.source:
            empty = False
            yield self._validated(batch)
        if empty:
            again = " (a function must yield them anew each time it is called)" if self.source.total is None else ""
            raise DataError(f"the data has no batches{again}")

    def _validated(self, batch: Batch) -> Batch:
        _check_batch(batch, self.inputs)
        if not self.allow_nonfinite:
            _check_finite(batch)
        return batch


def _check_batch(batch: Batch, inputs: tuple[TensorSpec, ...]) -> None:
    names = {spec.name for spec in inputs}
    if batch.feeds.keys() != names:
        missing = ", ".join(sorted(names - batch.feeds.keys()))
        unknown = ", ".join(sorted(repr(name) for name in batch.feeds.keys() - names))
        difference = "; ".join([f"{unknown} unknown"] * bool(unknown) + [f"{missing} missing"] * bool(missing))
        expected = ", ".join(map(str, inputs))
        raise DataError(f"{batch.origin}: wrong input names ({difference}): the model takes {expected}")
    for spec in inputs:
        array = batch.feeds[spec.name]
        if array.dtype != spec.dtype:
            raise DataError(
                f"{batch.origin}: input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}: "
                f"convert it with .astype({dtype_name(spec.dtype)})"
            )
        if not _fits(array, spec.shape):
            raise DataError(
                f"{batch.origin}: input {spec.name!r} has shape {list(array.shape)}, the model takes {spec}"
                f"{_batch_size_remedy(array, spec.shape)}"
            )
    _check_not_empty(batch, inputs)
    _check_samples(batch, inputs)


def _fits(array: Array, shape: tuple[int | str, ...]) -> bool:
    return array.ndim == len(shape) and all(
        isinstance(expected, str) or size == expected for size, expected in zip(array.shape, shape, strict=True)
    )


def _batch_size_remedy(array: Array, shape: tuple[int | str, ...]) -> str:
    """What to do if the array has another number of samples than a fixed batch, and fits otherwise."""
    if array.ndim and _fits(array[:0], (0, *shape[1:])):
        size = f"`batch_size={shape[0]}`"
        if len(array) < int(shape[0]):
            last = counted(len(array), "sample")
            return f": give whole batches: drop the last {last}, or, if all batches are this small, set {size}"
        return f": give whole batches of {shape[0]} (for data that is not in batches yet: {size})"
    return ""


def _check_not_empty(batch: Batch, inputs: tuple[TensorSpec, ...]) -> None:
    """Check that some input has values: a KV cache may be empty at the first step, but not all inputs."""
    arrays = {spec.name: batch.feeds[spec.name] for spec in inputs if spec.shape}
    if arrays and not any(array.size for array in arrays.values()):
        name, array = next(iter(arrays.items()))
        raise DataError(f"{batch.origin}: input {name!r} is empty: shape {list(array.shape)}")


def _check_samples(batch: Batch, inputs: tuple[TensorSpec, ...]) -> None:
    """Check that inputs whose dynamic first axes have the same name, or none, have the same number of samples."""
    samples: dict[str, dict[str, int]] = {}
    for spec in inputs:
        if spec.shape and isinstance(spec.shape[0], str):
            samples.setdefault(spec.shape[0], {})[spec.name] = batch.feeds[spec.name].shape[0]
    for group in samples.values():
        if len(set(group.values())) > 1:
            numbers = ", ".join(f"{name} has {count}" for name, count in group.items())
            raise DataError(f"{batch.origin}: ragged batch: {numbers} samples (first axis)")


def _check_finite(batch: Batch) -> None:
    for name, array in batch.feeds.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            index = [int(axis) for axis in np.argwhere(~np.isfinite(array))[0]]
            raise DataError(
                f"{batch.origin}: input {name!r} has {array[tuple(index)]} at {index}: "
                "remove it (calibrate and quantize can count and skip it: `nonfinite=skip`)"
            )
