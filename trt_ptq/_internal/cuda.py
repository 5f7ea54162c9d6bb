"""CUDA's driver, asked directly: whether there is a GPU, and calls that raise what they answer.

The driver's C functions keep their names and signatures, so no package is needed where a driver is.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from trt_ptq.errors import EngineError

_NAME_BYTES = 256


class Driver:
    """libcuda, initialized."""

    def __init__(self) -> None:
        """Raises:
        EngineError: no driver, or no GPU that it may use.
        """
        try:
            self._library: Any = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        except OSError as error:
            raise EngineError(f"there is no NVIDIA driver here ({error})") from error
        self.call("cuInit", 0)

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            EngineError: it did not succeed; with CUDA's name for why.
        """
        status = getattr(self._library, function)(*arguments)
        if status:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(name))
            raise EngineError(f"{function}: {(name.value or b'CUDA error').decode()} ({status})")

    def device(self) -> ctypes.c_int:
        """The first device that CUDA shows this process."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        return device

    def device_name(self) -> str:
        """What NVIDIA calls that device."""
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self.call("cuDeviceGetName", name, _NAME_BYTES, self.device())
        return name.value.decode(errors="replace")


def gpu_name() -> str | None:
    """Name of the first GPU that CUDA shows this process (CUDA_VISIBLE_DEVICES counts), None where there is none."""
    try:
        return Driver().device_name()
    except EngineError:
        return None
