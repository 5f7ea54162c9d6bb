"""Device memory for calibration batches: the protocol, the default, and double buffering on top of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trt_ptq._internal.hardware.cuda import Device
from trt_ptq.errors import EngineError, MissingPackageError
from trt_ptq.types import Feeds

Bytes = npt.NDArray[np.uint8]

_SLOTS = 2


class DeviceBuffers(Protocol):
    """Memory of one CUDA device, page-locked host memory, and one stream for the copies between them.

    Every method may be called from any thread, one at a time. What is allocated lives until `close`.
    """

    def allocate(self, size_bytes: int) -> int:
        """Pointer to new device memory. Raises MemoryError when there is not enough."""

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        """New page-locked host memory, which a copy reads asynchronously. Raises MemoryError as `allocate`."""

    def upload(self, array: Bytes, pointer: int) -> None:
        """Start copying a pinned array to device memory; it must not change before `synchronize`."""

    def synchronize(self) -> None:
        """Wait until all copies are done."""

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of device memory."""

    def close(self) -> None:
        """Free everything. Safe to call twice."""


OpenBuffers = Callable[[], DeviceBuffers]


def open_buffers() -> DeviceBuffers:
    """Buffers by pycuda where it is installed, otherwise by the CUDA driver itself, in the current CUDA context.

    Raises:
        EngineError: there is no CUDA device, or it has no memory left.
    """
    from trt_ptq.calibrators.tensorrt.device_memory.pycuda_buffers import PycudaBuffers

    try:
        return PycudaBuffers()
    except MissingPackageError:
        return open_driver_buffers()


def open_driver_buffers() -> DeviceBuffers:
    """Buffers by the CUDA driver, without any package.

    Raises:
        EngineError: there is no CUDA device, or it has no memory left.
    """
    try:
        return Device()
    except MemoryError as error:
        raise full_device(error) from error
    except EngineError as error:
        raise no_device(error) from error


def full_device(reason: object) -> EngineError:
    """The error for a device that has no memory left for a context and a stream."""
    return EngineError(f"the CUDA device has no memory left even to start ({reason}): free the GPU (see nvidia-smi)")


def no_device(reason: object) -> EngineError:
    """The error for a machine on which CUDA does not start."""
    return EngineError(
        f"no CUDA device to calibrate on ({reason}): TensorRT calibrates on an NVIDIA GPU (see nvidia-smi); "
        "without one, use trt-ptq calibrate, which needs none"
    )


@contextmanager
def released_on_failure(release: Callable[[], None]) -> Iterator[None]:
    """Call `release` if the block fails for want of memory (an EngineError says so) or by another EngineError."""
    try:
        yield
    except MemoryError as error:
        release()
        raise full_device(error) from error
    except EngineError:
        release()
        raise


@dataclass(frozen=True)
class _Slot:
    """Memory for one batch: device pointers, and the pinned memory that they are filled from, by input name."""

    pointers: dict[str, int]
    pinned: dict[str, Bytes]


class DoubleBuffer:
    """Two slots for every input, used in turn and allocated once: TensorRT reads one while the next is copied.

    A slot is overwritten only after TensorRT has asked for the batch in the other one, so it has finished with this
    one, and after `synchronize` of that batch, so pinned memory never changes during a copy.

    Args:
        buffers: where to allocate.
        sizes_bytes: size of one full batch by input name.

    Raises:
        EngineError: there is not enough memory.
    """

    def __init__(self, buffers: DeviceBuffers, sizes_bytes: Mapping[str, int]) -> None:
        self._buffers = buffers
        self._next_slot = 0
        try:
            self._slots = [self._allocate(sizes_bytes) for _ in range(_SLOTS)]
        except MemoryError as error:
            raise _out_of_memory(buffers, sizes_bytes, error) from error

    def upload(self, arrays: Feeds) -> dict[str, int]:
        """Start copying contiguous arrays. Returns device pointers by name, valid after `synchronize`."""
        slot = self._slots[self._next_slot]
        self._next_slot = (self._next_slot + 1) % _SLOTS
        for name, array in arrays.items():
            if array.size:
                slot.pinned[name][:] = array.reshape(-1).view(np.uint8)
                self._buffers.upload(slot.pinned[name], slot.pointers[name])
        return slot.pointers

    def _allocate(self, sizes_bytes: Mapping[str, int]) -> _Slot:
        needed = {name: max(size, 1) for name, size in sizes_bytes.items()}  # an empty input needs an address, too
        return _Slot(
            {name: self._buffers.allocate(size) for name, size in needed.items()},
            {name: self._buffers.allocate_pinned(size) for name, size in needed.items()},
        )


def _out_of_memory(buffers: DeviceBuffers, sizes_bytes: Mapping[str, int], reason: MemoryError) -> EngineError:
    free, total = buffers.memory()
    sizes = ", ".join(f"{name} {size:,} bytes" for name, size in sizes_bytes.items())
    return EngineError(
        f"out of memory for calibration batches ({reason}): needs {_SLOTS} x ({sizes}) = "
        f"{_SLOTS * sum(sizes_bytes.values()):,} bytes on the device; {free:,} of {total:,} bytes are free: "
        "use smaller batches, or free the GPU"
    )
