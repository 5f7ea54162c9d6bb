"""Device buffers by torch, where it has CUDA."""

from __future__ import annotations

from typing import Any

from trt_ptq.calibrators.errors import MissingPackageError
from trt_ptq.calibrators.optional import require
from trt_ptq.calibrators.tensorrt.buffers import Bytes, no_device


class TorchBuffers:
    """On torch's current device, in its primary context. Freed memory goes back to the device, not to torch's cache."""

    def __init__(self) -> None:
        self._torch = require("torch", extra="torch")
        if self._torch.version.cuda is None:
            raise MissingPackageError("torch is installed without CUDA")
        if not self._torch.cuda.is_available():
            raise no_device("torch.cuda.is_available() is false")
        self._device = self._torch.device("cuda", self._torch.cuda.current_device())
        self._stream = self._torch.cuda.Stream(self._device)
        self._on_device: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}

    def allocate(self, size_bytes: int) -> int:
        try:
            tensor = self._torch.empty(size_bytes, dtype=self._torch.uint8, device=self._device)
        except self._torch.cuda.OutOfMemoryError as error:
            raise MemoryError(str(error).splitlines()[0]) from error
        self._on_device[tensor.data_ptr()] = tensor
        return int(tensor.data_ptr())

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        tensor = self._torch.empty(size_bytes, dtype=self._torch.uint8, pin_memory=True)
        self._pinned[tensor.data_ptr()] = tensor
        array: Bytes = tensor.numpy()
        return array

    def copy(self, source: Bytes, pointer: int) -> None:
        with self._torch.cuda.stream(self._stream):
            self._on_device[pointer].copy_(self._pinned[source.ctypes.data], non_blocking=True)

    def synchronize(self) -> None:
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
