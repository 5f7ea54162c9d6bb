"""The CUDA driver, called by ctypes: device memory, pinned memory, one stream and events. Needs no Python package."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_ptq.errors import EngineError

_NAME_BYTES = 256
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for TensorRT's work on the default stream

# What the functions take; a handle, a host address and the address of a result are all `_ADDRESS`.
_ADDRESS, _DEVICE_ADDRESS, _SIZE = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuGetErrorName": (ctypes.c_int, _ADDRESS),
    "cuDeviceGet": (_ADDRESS, ctypes.c_int),
    "cuDeviceGetName": (_ADDRESS, ctypes.c_int, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_ADDRESS, ctypes.c_int),
    "cuDevicePrimaryCtxRelease_v2": (ctypes.c_int,),
    "cuCtxGetCurrent": (_ADDRESS,),
    "cuCtxPushCurrent_v2": (_ADDRESS,),
    "cuCtxPopCurrent_v2": (_ADDRESS,),
    "cuMemAlloc_v2": (_ADDRESS, _SIZE),
    "cuMemFree_v2": (_DEVICE_ADDRESS,),
    "cuMemAllocHost_v2": (_ADDRESS, _SIZE),
    "cuMemFreeHost": (_ADDRESS,),
    "cuMemGetInfo_v2": (_ADDRESS, _ADDRESS),
    "cuMemcpyHtoDAsync_v2": (_DEVICE_ADDRESS, _ADDRESS, _SIZE, _ADDRESS),
    "cuMemcpyDtoHAsync_v2": (_ADDRESS, _DEVICE_ADDRESS, _SIZE, _ADDRESS),
    "cuStreamCreate": (_ADDRESS, ctypes.c_uint),
    "cuStreamSynchronize": (_ADDRESS,),
    "cuStreamDestroy_v2": (_ADDRESS,),
    "cuEventCreate": (_ADDRESS, ctypes.c_uint),
    "cuEventRecord": (_ADDRESS, _ADDRESS),
    "cuEventSynchronize": (_ADDRESS,),
    "cuEventElapsedTime": (_ADDRESS, _ADDRESS, _ADDRESS),
    "cuEventDestroy_v2": (_ADDRESS,),
}


class DeviceMemoryError(EngineError, MemoryError):
    """The CUDA driver is out of memory, on the device or for pinned host memory."""


class Driver:
    """The initialized CUDA driver library.

    Raises:
        EngineError: there is no driver, or it finds no GPU.
    """

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        except OSError as error:
            raise EngineError(f"there is no NVIDIA driver here ({error})") from error
        for name, types in _SIGNATURES.items():
            getattr(self._library, name).argtypes = types
        self.call("cuInit", 0)

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            DeviceMemoryError: there is not enough memory.
            EngineError: any other failure, with the function and CUDA's name of the error.
        """
        status = getattr(self._library, function)(*arguments)
        if status:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(name))
            kind = DeviceMemoryError if status == _OUT_OF_MEMORY else EngineError
            raise kind(f"{function.removesuffix('_v2')}: {(name.value or b'CUDA error').decode()} ({status})")

    def handle(self, function: str, *arguments: Any) -> int:
        """What a function of the driver writes to its first argument: an address or a handle."""
        result = ctypes.c_uint64()
        self.call(function, ctypes.byref(result), *arguments)
        return result.value

    def first_device(self) -> int:
        """Number of the first GPU that this process may use (CUDA_VISIBLE_DEVICES counts)."""
        return self.handle("cuDeviceGet", 0)


def gpu_name() -> str | None:
    """Name of the first GPU that this process may use, None if there is none."""
    try:
        driver = Driver()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        driver.call("cuDeviceGetName", name, _NAME_BYTES, driver.first_device())
    except EngineError:
        return None
    return name.value.decode(errors="replace")


class Device:
    """Memory, one stream and events in a CUDA context.

    Uses the context of the calling thread, which TensorRT, torch or pycuda may have made; without one, the primary
    context of the first GPU. As a context manager it makes that context current in the block and closes at its end.
    Methods may be called from any thread, one at a time. Everything allocated lives until `free` or `close`.

    Raises:
        DeviceMemoryError: there is not even memory for a context and a stream.
        EngineError: there is no driver, or it finds no GPU.
    """

    def __init__(self) -> None:
        self._driver = Driver()
        self._pointers: set[int] = set()
        self._pinned: list[int] = []
        self._primary_of: int | None = None  # the device whose primary context has to be released
        self._open = False
        self._context = self._driver.handle("cuCtxGetCurrent")
        if not self._context:
            device = self._driver.first_device()
            self._context = self._driver.handle("cuDevicePrimaryCtxRetain", device)
            self._primary_of = device
        try:
            with self._current():
                self.stream = self._driver.handle("cuStreamCreate", _NON_BLOCKING)
        except EngineError:
            self._release_context()
            raise
        self._open = True

    def __enter__(self) -> Device:
        self._driver.call("cuCtxPushCurrent_v2", self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pop()
        self.close()

    def allocate(self, size_bytes: int) -> int:
        """Address of new device memory. Raises DeviceMemoryError, a MemoryError, when there is not enough."""
        with self._current():  # an empty tensor needs an address, too
            pointer = self._driver.handle("cuMemAlloc_v2", max(size_bytes, 1))
        self._pointers.add(pointer)
        return pointer

    def allocate_pinned(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """New page-locked host memory. Raises DeviceMemoryError, a MemoryError, when there is not enough."""
        with self._current():
            address = self._driver.handle("cuMemAllocHost_v2", max(size_bytes, 1))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def free(self, pointer: int) -> None:
        """Free memory from `allocate`."""
        self._pointers.discard(pointer)
        with self._current():
            self._driver.call("cuMemFree_v2", pointer)

    def upload(self, array: npt.NDArray[Any], pointer: int) -> None:
        """Start copying a C-contiguous array to the device; it must not change before `synchronize`."""
        if array.nbytes:
            with self._current():
                self._driver.call("cuMemcpyHtoDAsync_v2", pointer, array.ctypes.data, array.nbytes, self.stream)

    def download(self, array: npt.NDArray[Any], pointer: int) -> None:
        """Start copying from the device into a C-contiguous array, which is complete after `synchronize`."""
        if array.nbytes:
            with self._current():
                self._driver.call("cuMemcpyDtoHAsync_v2", array.ctypes.data, pointer, array.nbytes, self.stream)

    def read(self, array: npt.NDArray[Any], pointer: int, stream: int) -> None:
        """Copy from the device into a C-contiguous array after the work on `stream`, another library's, and wait."""
        with self._current():
            if array.nbytes:
                self._driver.call("cuMemcpyDtoHAsync_v2", array.ctypes.data, pointer, array.nbytes, stream)
            self._driver.call("cuStreamSynchronize", stream)

    def synchronize(self) -> None:
        """Wait until all work on the stream is done. Raises EngineError when some of it failed."""
        with self._current():
            self._driver.call("cuStreamSynchronize", self.stream)

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of device memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self._current():
            self._driver.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def stopwatch(self) -> Stopwatch:
        """A new stopwatch on the stream, for use inside the `with` block."""
        return Stopwatch(self._driver, self.stream)

    def close(self) -> None:
        """Wait for the stream and free everything, even when the work on it failed. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        try:
            with self._current():
                try:
                    self._driver.call("cuStreamSynchronize", self.stream)
                finally:
                    for pointer in self._pointers:
                        self._driver.call("cuMemFree_v2", pointer)
                    for address in self._pinned:
                        self._driver.call("cuMemFreeHost", address)
                    self._driver.call("cuStreamDestroy_v2", self.stream)
        finally:
            self._release_context()

    def _release_context(self) -> None:
        if self._primary_of is not None:
            self._driver.call("cuDevicePrimaryCtxRelease_v2", self._primary_of)

    def _pop(self) -> None:
        self._driver.handle("cuCtxPopCurrent_v2")

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Our context for the calling thread, and afterwards the context that it had."""
        self._driver.call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._pop()


class Stopwatch:
    """Time between two CUDA events around work on a stream, by the clock of the device."""

    def __init__(self, driver: Driver, stream: int) -> None:
        self._driver, self._stream = driver, stream
        self._start, self._end = driver.handle("cuEventCreate", 0), driver.handle("cuEventCreate", 0)

    def start(self) -> None:
        """Record the first event."""
        self._driver.call("cuEventRecord", self._start, self._stream)

    def stop(self) -> float:
        """Record the second event and wait for it. Returns milliseconds since `start`."""
        elapsed_ms = ctypes.c_float()
        self._driver.call("cuEventRecord", self._end, self._stream)
        self._driver.call("cuEventSynchronize", self._end)
        self._driver.call("cuEventElapsedTime", ctypes.byref(elapsed_ms), self._start, self._end)
        return elapsed_ms.value

    def close(self) -> None:
        """Destroy the events."""
        self._driver.call("cuEventDestroy_v2", self._start)
        self._driver.call("cuEventDestroy_v2", self._end)
