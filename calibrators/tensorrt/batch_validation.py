"""Lets through only batches that TensorRT can read whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trt_ptq.calibrators.tensorrt.calibration_warning import notify
from trt_ptq.calibrators.tensorrt.network_inputs import InputSpec, specs_of
from trt_ptq.errors import DataError
from trt_ptq.types import Array, Batch, Feeds


def as_batches(batches: Iterable[Any]) -> Iterator[Batch]:
    """Batches of a BatchSource as they are; feed dicts of any other iterable, numbered.

    Raises:
        DataError: something else comes, or nothing at all.
    """
    number = -1
    for number, item in enumerate(batches):
        batch = item if isinstance(item, Batch) else Batch(item, f"batch {number}")
        if not isinstance(batch.feeds, Mapping):
            raise DataError(
                f"{batch.origin}: expected a dict of numpy arrays by input name, got {type(batch.feeds).__name__}"
            )
        for name, array in batch.feeds.items():
            if not isinstance(array, np.ndarray):
                raise DataError(f"{batch.origin}: input {name!r} is a {type(array).__name__}: give a numpy array")
        yield batch
    if number < 0:
        raise DataError("the calibration data has no batches (a generator gives its batches only once)")


class BatchValidator:
    """Checks each batch against the network's inputs, or without a network against the first batch.

    TensorRT reads the full calibration shape at every pointer, without asking how much is there. So a short last
    batch is filled up by repeating its samples from the first on: no sample is lost and min-max is not changed;
    entropy counts the repeated ones twice. `repeated_samples` says how many; a warning is given.
    """

    def __init__(self, inputs: Mapping[str, InputSpec] | None) -> None:
        self._inputs = inputs
        self._short: str | None = None
        self.repeated_samples = 0

    def validate(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        """Arrays of `batch` by name, each of the full shape and contiguous.

        Raises:
            DataError: names, data type, shape or values do not fit; or a batch comes after a short one.
        """
        if self._short is not None:
            raise DataError(
                f"{self._short}: has fewer samples than the others, and {batch.origin} comes after it: "
                "only the last batch may be short"
            )
        if self._inputs is None:
            _check_names(batch, names, names)
            self._inputs = specs_of(batch.feeds)
        _check_names(batch, names, self._inputs)
        for name, array in batch.feeds.items():
            _check_array(batch, name, array, self._inputs[name])
        arrays = self._filled_up(batch, self._inputs)
        return {name: np.ascontiguousarray(arrays[name]) for name in names}

    def _filled_up(self, batch: Batch, inputs: Mapping[str, InputSpec]) -> Feeds:
        short = [name for name, array in batch.feeds.items() if array.shape != inputs[name].shape]
        if not short:
            return batch.feeds
        have, full = batch.feeds[short[0]].shape[0], inputs[short[0]].shape[0]
        for name, array in batch.feeds.items():
            batched = inputs[name].shape[:1] == (full,)
            if array.shape[:1] != ((have,) if batched else inputs[name].shape[:1]):
                raise DataError(
                    f"{batch.origin}: ragged batch: {short[0]} has {have} samples of {full}, "
                    f"{name} has {array.shape[0]} of {inputs[name].shape[0]} (first axis)"
                )
        self._short = batch.origin
        self.repeated_samples = full - have
        notify(
            f"{batch.origin}: the last batch has {have} samples of {full}: "
            f"filled up by repeating {full - have} from its beginning"
        )
        order = np.arange(full) % have
        return {name: array[order] if name in short else array for name, array in batch.feeds.items()}


def _check_names(batch: Batch, asked_for: Sequence[str], known: Iterable[str]) -> None:
    missing = [name for name in asked_for if name not in batch.feeds]
    unknown = [repr(name) for name in batch.feeds.keys() - set(known)]
    if missing or unknown:
        told = "; ".join(
            [f"{', '.join(missing)} missing"] * bool(missing)
            + [f"{', '.join(sorted(unknown))} unknown"] * bool(unknown)
        )
        raise DataError(f"{batch.origin}: wrong input names ({told}): the network takes {', '.join(known)}")


def _check_array(batch: Batch, name: str, array: Array, want: InputSpec) -> None:
    where = f"{batch.origin}: input {name!r}"
    dtype = np.dtype(want.dtype)
    if np.issubdtype(dtype, np.floating):
        dtype = np.dtype(np.float32)  # without a network, the first batch may have set another
    if array.dtype != dtype:
        raise DataError(f"{where} is {array.dtype}, TensorRT reads {dtype}: convert it with .astype(numpy.{dtype})")
    fits = array.ndim == len(want.shape) and array.shape[1:] == want.shape[1:]
    if not fits or (array.ndim and not 1 <= array.shape[0] <= want.shape[0]):
        raise DataError(
            f"{where} has shape {list(array.shape)}, calibration reads {list(want.shape)}: "
            "make batches of that size, or set OPT of the calibration profile to theirs"
        )
    if np.issubdtype(dtype, np.floating) and not np.isfinite(array).all():
        index = tuple(int(axis) for axis in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{where} has {array[index]} at {list(index)}: it would become the scale; leave the sample out")
