"""Device buffers by torch, where it has CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trt_ptq._internal.optional_packages import require
from trt_ptq.calibrators.tensorrt.buffers import Bytes, full_device, no_device
from trt_ptq.errors import EngineError, MissingPackageError


class TorchBuffers:
    """On torch's current device, in its primary context. Freed memory goes back to the device, not to torch's cache."""

    def __init__(self) -> None:
        self._torch = require("torch", extra="torch")
        if self._torch.version.cuda is None:
            raise MissingPackageError("torch is installed without CUDA")
        if not self._torch.cuda.is_available():
            raise no_device("torch.cuda.is_available() is false")
        self._device = self._torch.device("cuda", self._torch.cuda.current_device())
        try:
            with self._current():
                self._stream = self._torch.cuda.Stream(self._device)
        except MemoryError as error:
            raise full_device(error) from error
        self._on_device: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}

    def allocate(self, size_bytes: int) -> int:
        with self._current():
            tensor = self._torch.empty(size_bytes, dtype=self._torch.uint8, device=self._device)
        self._on_device[tensor.data_ptr()] = tensor
        return int(tensor.data_ptr())

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        with self._current():
            tensor = self._torch.empty(size_bytes, dtype=self._torch.uint8, pin_memory=True)
        self._pinned[tensor.data_ptr()] = tensor
        array: Bytes = tensor.numpy()
        return array

    def copy(self, source: Bytes, pointer: int) -> None:
        with self._current(), self._torch.cuda.stream(self._stream):
            self._on_device[pointer].copy_(self._pinned[source.ctypes.data], non_blocking=True)

    def synchronize(self) -> None:
        with self._current():
            self._stream.synchronize()

    def memory(self) -> tuple[int, int]:
        free, total = self._torch.cuda.mem_get_info(self._device)
        return int(free), int(total)

    def close(self) -> None:
        if not self._on_device:
            return
        self._stream.synchronize()
        self._on_device, self._pinned = {}, {}
        self._torch.cuda.empty_cache()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Our device for this thread, which torch would start on device 0; errors as in the protocol."""
        try:
            with self._torch.cuda.device(self._device):
                yield
        except RuntimeError as error:  # torch has one class for pinned memory that is short, and for all else
            told = str(error).splitlines()[0]
            if "out of memory" in told:
                raise MemoryError(told) from error
            raise EngineError(f"torch: {told}") from error
