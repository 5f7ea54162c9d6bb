"""Whether there is an NVIDIA GPU, asked of the driver itself: no package is needed to find out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial

_NAME_BYTES = 256


def gpu_name() -> str | None:
    """Name of the first GPU that CUDA shows this process (CUDA_VISIBLE_DEVICES counts), None where there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    asked: tuple[Callable[[], int], ...] = (
        partial(driver.cuInit, 0),
        partial(driver.cuDeviceGet, ctypes.byref(device), 0),
        partial(driver.cuDeviceGetName, name, _NAME_BYTES, device),
    )
    if any(call() for call in asked):  # 0 is success; the first that fails ends it
        return None
    return name.value.decode(errors="replace")
