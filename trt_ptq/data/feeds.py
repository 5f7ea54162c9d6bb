"""Converts what users' data sets yield (dicts, tuples, arrays, tensors) to feeds: numpy arrays by input name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trt_ptq.errors import DataError
from trt_ptq.types import Array, Batch, Feeds, TensorSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeedsReader:
    """Converts items to batches for a model with these inputs.

    Accepted items: a dict by input name; a tuple or list of arrays in the order of the inputs; a bare array if the
    model has one input. Further elements of a tuple (labels) are ignored with a warning.
    """

    inputs: tuple[TensorSpec, ...]
    _warnings: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def batch(self, item: Any, origin: str, ignore_extra: bool = False) -> Batch:
        """Convert `item`. With `ignore_extra`, further keys of a dict are ignored with a warning; otherwise they stay
        in the feeds, where validation rejects them.

        Raises:
            DataError: not one of the accepted forms, or a value is not an array; names `origin`.
        """
        if isinstance(item, Batch):
            return item
        if isinstance(item, Mapping):
            return Batch(self._from_mapping(item, origin, ignore_extra), origin)
        if is_array(item):
            item = [item]
            if len(self.inputs) != 1:
                raise DataError(
                    f"{origin}: expected a dict by input name, got an array: the model has {self._inputs()}"
                )
        if not isinstance(item, (tuple, list)) or not item or not all(map(is_array, item[: len(self.inputs)])):
            raise DataError(f"{origin}: expected a dict of arrays by input name, got {_kind(item)}")
        return Batch(self._from_sequence(item, origin), origin)

    def _from_mapping(self, item: Mapping[Any, Any], origin: str, ignore_extra: bool) -> Feeds:
        by_name = {str(name): value for name, value in item.items()}
        specs = {spec.name: spec for spec in self.inputs}
        if ignore_extra:
            missing = [name for name in specs if name not in by_name]
            if missing:
                raise DataError(
                    f"{origin}: has {', '.join(by_name)}, but not {', '.join(missing)}: the model has {self._inputs()}"
                )
            extra = [name for name in by_name if name not in specs]
            if extra:
                self._warn(f"{origin}: {', '.join(extra)} ignored: the model has {self._inputs()}")
            by_name = {name: by_name[name] for name in specs}
        return {name: as_array(value, specs.get(name), f"{origin}: input {name!r}") for name, value in by_name.items()}

    def _from_sequence(self, item: Sequence[Any], origin: str) -> Feeds:
        if len(item) < len(self.inputs):
            raise DataError(f"{origin}: has {len(item)} arrays, but the model has {self._inputs()}")
        if len(item) > len(self.inputs):
            self._warn(
                f"{origin}: has {len(item)} elements; only the first {len(self.inputs)} are used, because the model "
                f"has {self._inputs()}"
            )
        return {
            spec.name: as_array(value, spec, f"{origin}: input {spec.name!r}")
            for spec, value in zip(self.inputs, item, strict=False)
        }

    def _inputs(self) -> str:
        count = len(self.inputs)
        return f"{count} input{'s' * (count != 1)} ({', '.join(spec.name for spec in self.inputs)})"

    def _warn(self, warning: str) -> None:
        if not self._warnings:  # the same is true of every batch
            self._warnings.add(warning)
            _log.warning(warning)


def is_array(value: Any) -> bool:
    """Whether `value` is a numpy array or a torch tensor."""
    return isinstance(value, np.ndarray) or _is_tensor(value)


def as_array(value: Any, spec: TensorSpec | None, where: str) -> Array:
    """Convert `value` to a numpy array: torch tensors from any device, and everything that numpy converts.

    Python numbers and lists, which have no dtype of their own, take the one of `spec` if it is of the same kind.

    Raises:
        DataError: there is no such numpy array; names `where`.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        array = _from_tensor(value, where) if _is_tensor(value) else np.asarray(value)
    except DataError:
        raise
    except Exception as error:  # array libraries raise many kinds of errors
        reason = " ".join(str(error).split())
        raise DataError(f"{where} cannot be converted to a numpy array: {type(error).__name__}: {reason}") from error
    if spec is not None and isinstance(value, (list, tuple, int, float)) and not isinstance(value, np.generic):
        return _with_dtype(array, spec.dtype)
    return array


def stack(values: Sequence[Any], spec: TensorSpec, where: str) -> Array:
    """One array from the samples `values`.

    Raises:
        DataError: the samples have different shapes, or are no arrays; names `where`.
    """
    arrays = [as_array(value, spec, where) for value in values]
    for array in arrays:
        if array.shape != arrays[0].shape:
            raise DataError(
                f"{where}: the samples have different shapes, {list(arrays[0].shape)} and {list(array.shape)}: pad "
                "them to one shape, or use `batch_size=1`"
            )
    return np.stack(arrays)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported torch
    return torch is not None and isinstance(value, torch.Tensor)


def _from_tensor(tensor: Any, where: str) -> Array:
    if str(tensor.dtype) == "torch.bfloat16":
        raise DataError(f"{where} is bfloat16, which numpy does not have: convert it with .float() or .half()")
    return np.asarray(tensor.detach().cpu().numpy())


def _with_dtype(array: Array, dtype: np.dtype[np.generic]) -> Array:
    kinds = array.dtype.kind + dtype.kind
    if kinds not in ("ff", "ii", "iu"):
        return array
    converted = array.astype(dtype)
    return converted if kinds == "ff" or np.array_equal(converted, array) else array  # an integer may not fit


def _kind(item: Any) -> str:
    name = type(item).__name__
    if not isinstance(item, (tuple, list)):
        return name
    elements = sorted({type(element).__name__ for element in item})
    return f"{name} of {', '.join(elements) or 'nothing'}"
