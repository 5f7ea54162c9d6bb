"""Double buffers: TensorRT reads one batch while the next is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trt_ptq.calibrators.tensorrt.buffers import Bytes, DeviceBuffers
from trt_ptq.errors import EngineError
from trt_ptq.types import Feeds

_SLOTS = 2


@dataclass(frozen=True)
class _Slot:
    """Room for one batch: device pointers, and the pinned memory that they are filled from."""

    pointers: dict[str, int]
    pinned: dict[str, Bytes]


class DoubleBuffer:
    """Two slots for every input, used in turn; allocated once.

    A slot is filled again only after TensorRT has asked for the batch in the other one, which says that it is
    done with this one, and after `synchronize` of that batch, so pinned memory never changes under a copy.
    """

    def __init__(self, buffers: DeviceBuffers, sizes_bytes: Mapping[str, int]) -> None:
        self._buffers = buffers
        self._turn = 0
        try:
            self._slots = [self._allocate(sizes_bytes) for _ in range(_SLOTS)]
        except MemoryError as error:
            raise _out_of_memory(buffers, sizes_bytes, error) from error

    def send(self, arrays: Feeds) -> dict[str, int]:
        """Start copying contiguous `arrays`; the pointers by name, to be read after `synchronize`."""
        slot = self._slots[self._turn % _SLOTS]
        self._turn += 1
        for name, array in arrays.items():
            slot.pinned[name][:] = array.reshape(-1).view(np.uint8)
            self._buffers.copy(slot.pinned[name], slot.pointers[name])
        return slot.pointers

    def _allocate(self, sizes_bytes: Mapping[str, int]) -> _Slot:
        return _Slot(
            {name: self._buffers.allocate(size) for name, size in sizes_bytes.items()},
            {name: self._buffers.allocate_pinned(size) for name, size in sizes_bytes.items()},
        )


def _out_of_memory(buffers: DeviceBuffers, sizes_bytes: Mapping[str, int], reason: MemoryError) -> EngineError:
    free, total = buffers.memory()
    asked = ", ".join(f"{name} {size:,} bytes" for name, size in sizes_bytes.items())
    return EngineError(
        f"out of memory for calibration batches ({reason}): asked for {_SLOTS} x ({asked}) = "
        f"{_SLOTS * sum(sizes_bytes.values()):,} bytes on the device; {free:,} of {total:,} were still free: "
        "use smaller batches, or free the GPU"
    )
