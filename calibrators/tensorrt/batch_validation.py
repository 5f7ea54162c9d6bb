"""Checks that TensorRT can read a batch in full before its pointers are handed over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trt_ptq.calibrators.tensorrt.calibration_warning import notify
from trt_ptq.calibrators.tensorrt.network_inputs import InputSpec, specs_of
from trt_ptq.errors import DataError
from trt_ptq.types import Array, Batch, Feeds, contiguous, dtype_name


class BatchValidator:
    """Checks each batch against the network's inputs, or without a network against the first batch.

    TensorRT reads the full calibration shape at every pointer, without asking how much memory is there. So a small
    last batch is filled up by repeating its samples in order: no sample is lost and min-max ranges do not change;
    entropy counts the repeated samples twice. `repeated_samples` counts them; a warning is given.

    Args:
        inputs: data types and full calibration shapes by input name, or None.
    """

    def __init__(self, inputs: Mapping[str, InputSpec] | None) -> None:
        self._inputs = inputs
        self._batches = 0
        self._small: str | None = None  # why no batch may follow: the last one was small
        self.repeated_samples = 0

    def validate(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        """Contiguous arrays of `batch` by name, in the full calibration shape.

        Raises:
            DataError: names, data types, shapes or values do not fit, or an earlier batch was small.
        """
        if self._small is not None:
            raise DataError(self._small)
        if self._inputs is None:
            _check_names(batch, names, names)
            self._inputs = specs_of(batch.feeds)
        _check_names(batch, names, self._inputs)
        for name, array in batch.feeds.items():
            _check_array(batch, name, array, self._inputs[name])
        arrays = contiguous(self._fill_up(batch, self._inputs))
        self._batches += 1
        return {name: arrays[name] for name in names}

    def _fill_up(self, batch: Batch, inputs: Mapping[str, InputSpec]) -> Feeds:
        small = [name for name, array in batch.feeds.items() if array.shape != inputs[name].shape]
        if not small:
            return batch.feeds
        samples, full = batch.feeds[small[0]].shape[0], inputs[small[0]].shape[0]
        for name, array in batch.feeds.items():
            batched = inputs[name].shape[:1] == (full,)
            if array.shape[:1] != ((samples,) if batched else inputs[name].shape[:1]):
                raise DataError(
                    f"{batch.origin}: ragged batch: {small[0]} has {samples} samples of {full}, "
                    f"{name} has {array.shape[0]} of {inputs[name].shape[0]} (first axis)"
                )
        self._small = (
            f"{batch.origin}: has {samples} samples, but calibration reads {full} (the OPT shape of the calibration "
            f"profile, or the network's own shape), and "
        ) + (
            f"only the last batch may have fewer: use batches of {full}"
            if self._batches
            else f"other batches follow: use batches of {full}, or set OPT to {samples}"
        )
        self.repeated_samples = full - samples
        notify(
            f"{batch.origin}: has {samples} samples, calibration reads {full}: "
            f"filled up by repeating {full - samples} of them"
        )
        order = np.arange(full) % samples
        return {name: array[order] if name in small else array for name, array in batch.feeds.items()}


def _check_names(batch: Batch, requested: Sequence[str], known: Iterable[str]) -> None:
    missing = [name for name in requested if name not in batch.feeds]
    unknown = sorted(repr(name) for name in batch.feeds.keys() - set(known))
    if missing or unknown:
        problems = [f"{', '.join(missing)} missing"] if missing else []
        problems += [f"{', '.join(unknown)} unknown"] if unknown else []
        raise DataError(
            f"{batch.origin}: wrong input names ({'; '.join(problems)}): the network takes {', '.join(known)}"
        )


def _check_array(batch: Batch, name: str, array: Array, expected: InputSpec) -> None:
    where = f"{batch.origin}: input {name!r}"
    dtype = np.dtype(expected.dtype)
    if np.issubdtype(dtype, np.floating):
        dtype = np.dtype(np.float32)  # without a network, the first batch may have set another type
    if array.dtype != dtype:
        raise DataError(
            f"{where} is {array.dtype}, TensorRT reads {dtype}: convert it with .astype({dtype_name(dtype)})"
        )
    fits = array.ndim == len(expected.shape) and array.shape[1:] == expected.shape[1:]
    if not fits or (array.ndim and not 1 <= array.shape[0] <= expected.shape[0]):
        raise DataError(
            f"{where} has shape {list(array.shape)}, calibration reads {list(expected.shape)}: use batches of that "
            "shape, or set OPT of the calibration profile to theirs"
        )
    if np.issubdtype(dtype, np.floating) and not np.isfinite(array).all():
        index = tuple(int(axis) for axis in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{where} has {array[index]} at {list(index)}, which would become the scale: remove the sample")
