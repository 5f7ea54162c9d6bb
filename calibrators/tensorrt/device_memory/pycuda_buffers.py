"""Device buffers by pycuda, which existing calibrator code often uses already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.calibrators.tensorrt.device_memory.buffers import Bytes, full_device, no_device, released_on_failure
from trt_ptq.errors import EngineError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for TensorRT's work on the default stream


class PycudaBuffers:
    """Buffers in pycuda's current context (from `pycuda.autoinit`, say), otherwise in the primary context.

    Raises:
        MissingPackageError: pycuda cannot be imported.
        EngineError: there is no CUDA device, or it has no memory left.
    """

    def __init__(self) -> None:
        self._driver = require("pycuda.driver", extra="pycuda")
        try:
            self._driver.init()
            self._context = self._driver.Context.get_current()
            self._retained = self._context is None
            if self._retained:
                self._context = self._device().retain_primary_context()
        except self._driver.MemoryError as error:
            raise full_device(error) from error
        except self._driver.Error as error:
            raise no_device(error) from error
        self._allocations: list[Any] = []
        self._pinned: list[Any] = []
        with released_on_failure(self._release_context), self._current():
            self._stream = self._driver.Stream(_NON_BLOCKING)

    def allocate(self, size_bytes: int) -> int:
        with self._current():
            self._allocations.append(self._driver.mem_alloc(size_bytes))
        return int(self._allocations[-1])

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        with self._current():
            array: Bytes = self._driver.pagelocked_empty(size_bytes, np.uint8)
        self._pinned.append(array.base)
        return array

    def upload(self, array: Bytes, pointer: int) -> None:
        with self._current():
            self._driver.memcpy_htod_async(pointer, array, self._stream)

    def synchronize(self) -> None:
        with self._current():
            self._stream.synchronize()

    def memory(self) -> tuple[int, int]:
        with self._current():
            free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def close(self) -> None:
        if self._stream is None:
            return
        with self._current():
            self._stream.synchronize()
            for memory in (*self._allocations, *self._pinned):
                memory.free()
            self._allocations, self._pinned, self._stream = [], [], None
        self._release_context()

    def _release_context(self) -> None:
        if self._retained:
            self._context.detach()  # pycuda's destructor would not release a primary context

    def _device(self) -> Any:
        try:
            return self._driver.Context.get_device()
        except self._driver.LogicError:  # no context yet
            return self._driver.Device(0)

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Our context for the calling thread, and afterwards the context that it had; errors as in `DeviceBuffers`."""
        self._context.push()
        try:
            yield
        except self._driver.MemoryError as error:
            raise MemoryError(str(error)) from error
        except self._driver.Error as error:
            raise EngineError(str(error)) from error
        finally:
            self._driver.Context.pop()
