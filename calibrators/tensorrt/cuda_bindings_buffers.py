"""Device buffers by NVIDIA's cuda-bindings: its driver API, which needs no compiler and no CUDA toolkit."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trt_ptq._internal.optional_packages import require
from trt_ptq.calibrators.tensorrt.buffers import Bytes, full_device, no_device
from trt_ptq.errors import EngineError


class CudaBindingsBuffers:
    """In the calling thread's CUDA context, which TensorRT uses too; where there is none, in device 0's primary one."""

    def __init__(self) -> None:
        self._driver = require("cuda.bindings.driver", extra="trt10")
        self._device: Any = None
        try:
            self._call("cuInit", 0)
            self._context = self._call("cuCtxGetCurrent")
            if not int(self._context):
                device = self._call("cuDeviceGet", 0)
                self._context = self._call("cuDevicePrimaryCtxRetain", device)
                self._device = device
        except MemoryError as error:
            raise full_device(error) from error
        except (RuntimeError, EngineError) as error:  # RuntimeError: no libcuda
            raise no_device(error) from error
        self._pointers: list[int] = []
        self._pinned: list[int] = []
        try:
            with self._current():
                self._stream = self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        except MemoryError as error:
            self._release_context()
            raise full_device(error) from error
        except EngineError:
            self._release_context()
            raise
        self._open = True

    def allocate(self, size_bytes: int) -> int:
        with self._current():
            self._pointers.append(int(self._call("cuMemAlloc", size_bytes)))
        return self._pointers[-1]

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        with self._current():
            address = int(self._call("cuMemAllocHost", size_bytes))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def copy(self, source: Bytes, pointer: int) -> None:
        with self._current():
            self._call("cuMemcpyHtoDAsync", pointer, source.ctypes.data, source.nbytes, self._stream)

    def synchronize(self) -> None:
        with self._current():
            self._call("cuStreamSynchronize", self._stream)

    def memory(self) -> tuple[int, int]:
        with self._current():
            free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with self._current():
            self._call("cuStreamSynchronize", self._stream)
            for pointer in self._pointers:
                self._call("cuMemFree", pointer)
            for address in self._pinned:
                self._call("cuMemFreeHost", address)
            self._call("cuStreamDestroy", self._stream)
        self._release_context()

    def _release_context(self) -> None:
        if self._device is not None:
            self._call("cuDevicePrimaryCtxRelease", self._device)

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Our context for this thread, and afterwards the one that it had."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._driver, name)(*arguments)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise MemoryError(f"{name}: {status.name}")
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise EngineError(f"{name}: {status.name}")
        return results if len(results) > 1 else results[0] if results else None
