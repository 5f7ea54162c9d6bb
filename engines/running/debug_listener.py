"""Copies the debug tensors of an engine to the host while it runs."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from trt_ptq._internal.hardware.cuda import Device
from trt_ptq.errors import EngineError
from trt_ptq.types import Array


class DebugTensors:
    """The values of debug tensors by name, as `listener` receives them from TensorRT.

    Args:
        trt: the TensorRT module of the engine.
        device: copies to the host.
    """

    def __init__(self, trt: Any, device: Device) -> None:
        self._trt, self._device = trt, device
        self._values: dict[str, Array] = {}
        self._error: BaseException | None = None
        self.listener = self._create_listener()

    def take(self) -> dict[str, Array]:
        """The values of one run. Raises the exception of the callback, which TensorRT would swallow."""
        values, error = self._values, self._error
        self._values, self._error = {}, None
        if error is not None:
            raise error
        return values

    def _create_listener(self) -> Any:
        receive = self._receive

        class Listener(self._trt.IDebugListener):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()

            def process_debug_tensor(
                self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: int
            ) -> bool:
                return receive(addr, location, type, shape, name, stream)

        return Listener()

    def _receive(self, address: Any, location: Any, dtype: Any, shape: Any, name: str, stream: int) -> bool:
        try:
            try:
                numpy_type = np.dtype(self._trt.nptype(dtype))
            except TypeError as error:  # bfloat16, FP8, INT4
                raise EngineError(f"debug tensor {name!r} is {dtype}, which numpy does not have") from error
            array = np.empty(tuple(shape), numpy_type)
            pointer = _pointer(address)
            if location == self._trt.TensorLocation.HOST:
                ctypes.memmove(array.ctypes.data, pointer, array.nbytes)
            else:
                self._device.read(array, pointer, stream)
        except BaseException as error:
            self._error = self._error or error
            return False
        self._values[name] = array
        return True


def _pointer(address: Any) -> int:
    """The pointer in a capsule of Python's C API, in which the bindings wrap it."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.argtypes, api.PyCapsule_GetName.restype = [ctypes.py_object], ctypes.c_char_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    return int(api.PyCapsule_GetPointer(address, api.PyCapsule_GetName(address)))
