"""Device buffers by NVIDIA's cuda-bindings: its driver API, which needs no compiler and no CUDA toolkit."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.calibrators.tensorrt.device_memory.buffers import Bytes, full_device, no_device, released_on_failure
from trt_ptq.errors import EngineError


class CudaBindingsBuffers:
    """Buffers in the CUDA context of the calling thread, otherwise in the primary context of the first GPU.

    Raises:
        MissingPackageError: cuda-bindings cannot be imported.
        EngineError: there is no CUDA device, or it has no memory left.
    """

    def __init__(self) -> None:
        self._driver = require("cuda.bindings.driver", extra="cuda-bindings")
        self._pointers: list[int] = []
        self._pinned: list[int] = []
        self._retained_of: Any = None  # the device whose primary context has to be released
        try:
            self._call("cuInit", 0)
            self._context = self._call("cuCtxGetCurrent")
            if not int(self._context):
                device = self._call("cuDeviceGet", 0)
                self._context = self._call("cuDevicePrimaryCtxRetain", device)
                self._retained_of = device
        except MemoryError as error:
            raise full_device(error) from error
        except (RuntimeError, EngineError) as error:  # RuntimeError: no driver library
            raise no_device(error) from error
        with released_on_failure(self._release_context), self._current():
            self._stream = self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)

    def allocate(self, size_bytes: int) -> int:
        with self._current():
            self._pointers.append(int(self._call("cuMemAlloc", max(size_bytes, 1))))
        return self._pointers[-1]

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        with self._current():
            address = int(self._call("cuMemAllocHost", max(size_bytes, 1)))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def upload(self, array: Bytes, pointer: int) -> None:
        if array.nbytes:
            with self._current():
                self._call("cuMemcpyHtoDAsync", pointer, array.ctypes.data, array.nbytes, self._stream)

    def synchronize(self) -> None:
        with self._current():
            self._call("cuStreamSynchronize", self._stream)

    def memory(self) -> tuple[int, int]:
        with self._current():
            free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def close(self) -> None:
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        try:
            with self._current():
                try:
                    self._call("cuStreamSynchronize", stream)
                finally:
                    for pointer in self._pointers:
                        self._call("cuMemFree", pointer)
                    for address in self._pinned:
                        self._call("cuMemFreeHost", address)
                    self._call("cuStreamDestroy", stream)
        finally:
            self._release_context()

    def _release_context(self) -> None:
        if self._retained_of is not None:
            self._call("cuDevicePrimaryCtxRelease", self._retained_of)

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Our context for the calling thread, and afterwards the context that it had."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def _call(self, function: str, *arguments: Any) -> Any:
        """What a function of the driver returns beside its status; errors as in `DeviceBuffers`."""
        status, *results = getattr(self._driver, function)(*arguments)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise MemoryError(f"{function}: {status.name}")
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise EngineError(f"{function}: {status.name} ({int(status)})")
        return results[0] if len(results) == 1 else tuple(results)
