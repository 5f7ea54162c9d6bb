"""Device buffers by torch, for programs that use it anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.calibrators.tensorrt.device_memory.buffers import Bytes, full_device, no_device
from trt_ptq.errors import EngineError


class TorchBuffers:
    """Buffers on torch's current device, in its primary context, from torch's memory pools.

    Raises:
        MissingPackageError: torch cannot be imported.
        EngineError: torch finds no CUDA device, or the device has no memory left.
    """

    def __init__(self) -> None:
        self._torch = require("torch", extra="torch")
        self._tensors: dict[int, Any] = {}  # by address; torch frees the memory of a tensor that nothing refers to
        if not self._torch.cuda.is_available():
            raise no_device("torch.cuda.is_available() is false")
        self._device = self._torch.device("cuda", self._torch.cuda.current_device())
        try:
            with self._current():
                self._stream: Any = self._torch.cuda.Stream(self._device)
        except MemoryError as error:
            raise full_device(error) from error

    def allocate(self, size_bytes: int) -> int:
        with self._current():
            tensor = self._torch.empty(max(size_bytes, 1), dtype=self._torch.uint8, device=self._device)
            self._torch.cuda.current_stream(self._device).synchronize()  # its memory may still be in use there
        return self._keep(tensor)

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        with self._current():
            tensor = self._torch.empty(max(size_bytes, 1), dtype=self._torch.uint8, pin_memory=True)
        self._keep(tensor)
        array: Bytes = tensor.numpy()
        return array[:size_bytes]

    def upload(self, array: Bytes, pointer: int) -> None:
        with self._current(), self._torch.cuda.stream(self._stream):
            target, pinned = self._tensors[pointer], self._tensors[array.ctypes.data]
            target[: array.nbytes].copy_(pinned[: array.nbytes], non_blocking=True)

    def synchronize(self) -> None:
        with self._current():
            self._stream.synchronize()

    def memory(self) -> tuple[int, int]:
        free, total = self._torch.cuda.mem_get_info(self._device)
        return int(free), int(total)

    def close(self) -> None:
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        try:
            with self._current():
                stream.synchronize()
        finally:
            self._tensors.clear()
            self._torch.cuda.empty_cache()  # TensorRT, which builds next, does not allocate from torch's pool

    def _keep(self, tensor: Any) -> int:
        self._tensors[tensor.data_ptr()] = tensor
        return int(tensor.data_ptr())

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Our device for the calling thread, which would start on the first one; errors as in `DeviceBuffers`."""
        try:
            with self._torch.cuda.device(self._device):
                yield
        except RuntimeError as error:  # torch has no class of its own for pinned memory that is short
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if "out of memory" in reason:
                raise MemoryError(reason) from error
            raise EngineError(f"torch: {reason}") from error
