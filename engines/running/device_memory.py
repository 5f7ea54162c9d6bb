"""Device memory, a stream and a stopwatch for running engines."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any

from trt_ptq._internal.cuda import Driver
from trt_ptq.errors import EngineError
from trt_ptq.types import Array

_NON_BLOCKING = 1


class Device:
    """The first GPU, as a context manager: leaving it frees everything that was allocated, in any case.

    All work goes through one stream; arrays are C-contiguous and must stay alive until `synchronize`.
    """

    def __init__(self) -> None:
        self._driver = Driver()
        self._pointers: set[int] = set()
        self._primary: ctypes.c_int | None = None  # the device whose primary context we took
        self.stream = 0

    def __enter__(self) -> Device:
        self._enter_context()
        stream = ctypes.c_void_p()
        try:
            self._driver.call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        except EngineError:
            self._leave_context()
            raise
        self.stream = int(stream.value or 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.synchronize()
        finally:
            for pointer in sorted(self._pointers):
                self.free(pointer)
            self._driver.call("cuStreamDestroy_v2", ctypes.c_void_p(self.stream))
            self._leave_context()

    def _enter_context(self) -> None:
        """The thread's CUDA context, which TensorRT uses too; where there is none, the device's primary one."""
        context = ctypes.c_void_p()
        self._driver.call("cuCtxGetCurrent", ctypes.byref(context))
        if context.value:
            return
        device = self._driver.device()
        self._driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._primary = device
        self._driver.call("cuCtxPushCurrent_v2", context)

    def _leave_context(self) -> None:
        if self._primary is not None:
            self._driver.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
            self._driver.call("cuDevicePrimaryCtxRelease_v2", self._primary)
            self._primary = None

    def allocate(self, size_bytes: int) -> int:
        """Device memory; the result is its address.

        Raises:
            EngineError: there is not enough; with what was asked for and what is free.
        """
        pointer = ctypes.c_uint64()
        try:
            # An empty tensor needs an address as well.
            self._driver.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size_bytes, 1)))
        except EngineError as error:
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            self._driver.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            raise EngineError(
                f"no device memory for {size_bytes:,} bytes ({free.value:,} of {total.value:,} are free): {error}"
            ) from error
        self._pointers.add(pointer.value)
        return pointer.value

    def free(self, pointer: int) -> None:
        """Give back what `allocate` gave."""
        self._pointers.discard(pointer)
        self._driver.call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def upload(self, pointer: int, array: Array) -> None:
        """Copy `array` to the device, in the order of the stream."""
        self._copy("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(pointer), ctypes.c_void_p(array.ctypes.data), array.nbytes)

    def download(self, array: Array, pointer: int) -> None:
        """Copy from the device into `array`, in the order of the stream."""
        self._copy("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(pointer), array.nbytes)

    def _copy(self, function: str, target: Any, source: Any, size_bytes: int) -> None:
        if size_bytes:
            self._driver.call(function, target, source, ctypes.c_size_t(size_bytes), ctypes.c_void_p(self.stream))

    def synchronize(self) -> None:
        """Wait until all work is done.

        Raises:
            EngineError: some of it failed.
        """
        self._driver.call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def stopwatch(self) -> Stopwatch:
        """A new one on the stream."""
        return Stopwatch(self._driver, self.stream)


class Stopwatch:
    """Two CUDA events around work on a stream: what lies between them, on the device's clock."""

    def __init__(self, driver: Driver, stream: int) -> None:
        self._driver, self._stream = driver, ctypes.c_void_p(stream)
        self._start, self._end = self._event(), self._event()

    def _event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._driver.call("cuEventCreate", ctypes.byref(event), 0)
        return event

    def start(self) -> None:
        """Mark the beginning."""
        self._driver.call("cuEventRecord", self._start, self._stream)

    def stop(self) -> float:
        """Mark the end and wait for it; milliseconds since `start`."""
        elapsed = ctypes.c_float()
        self._driver.call("cuEventRecord", self._end, self._stream)
        self._driver.call("cuEventSynchronize", self._end)
        self._driver.call("cuEventElapsedTime", ctypes.byref(elapsed), self._start, self._end)
        return elapsed.value

    def close(self) -> None:
        """Destroy the events."""
        self._driver.call("cuEventDestroy_v2", self._start)
        self._driver.call("cuEventDestroy_v2", self._end)
