"""Memory that a session writes its outputs into."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import numpy.typing as npt
from onnx import helper

from trt_ptq.calibrators.batches import Array


class HostBuffers:
    """One growing buffer a name; an array from `take` is valid until the same name is taken again."""

    device = "cpu"  # as ONNX Runtime calls it

    def __init__(self) -> None:
        self._bytes: dict[str, npt.NDArray[np.uint8]] = {}

    def take(self, name: str, element_type: int, shape: tuple[int, ...]) -> Array:
        """An array of `shape` and of the ONNX `element_type`, its values undefined."""
        dtype = helper.tensor_dtype_to_np_dtype(element_type)
        needed = math.prod(shape) * dtype.itemsize
        if name not in self._bytes or self._bytes[name].size < needed:
            self._bytes[name] = np.empty(needed, np.uint8)
        return self._bytes[name][:needed].view(dtype).reshape(shape)

    def pointer(self, array: Array) -> int:
        """Address of an array's first byte."""
        return array.ctypes.data

    def fill(self, array: Array, pointer: int) -> None:
        """Copy what lies at `pointer` into `array`, as many bytes as it has."""
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)
