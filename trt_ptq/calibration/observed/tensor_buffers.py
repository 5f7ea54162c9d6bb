"""Memory for observed tensors, which is used again as soon as a tensor is not needed any more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from onnx import helper

from trt_ptq.analysis.dynamic_sizes import Shape
from trt_ptq.calibration.devices import Device


@dataclass(frozen=True)
class Buffer:
    """A tensor in the memory of a device: `slot` of a `BufferPool`."""

    slot: int
    array: Any
    element_type: int
    shape: Shape


class BufferSlots:
    """Pieces of memory, which grow to what was in use at the same time."""

    def __init__(self) -> None:
        self._bytes: list[int] = []  # by slot
        self._free: set[int] = set()

    def take(self, needed: int) -> int:
        """A slot of at least `needed` bytes: the smallest free one that has them, else one that grows, or a new one."""
        slot = self._best_slot(needed)
        self._free.discard(slot)
        self._bytes[slot] = max(self._bytes[slot], needed)
        return slot

    def free(self, slot: int) -> None:
        """Let a slot be taken again."""
        self._free.add(slot)

    def free_all(self) -> None:
        """Let all slots be taken again."""
        self._free = set(range(len(self._bytes)))

    @property
    def total_bytes(self) -> int:
        """The size of all slots."""
        return sum(self._bytes)

    def _best_slot(self, needed: int) -> int:
        if large_enough := [slot for slot in self._free if self._bytes[slot] >= needed]:
            return min(large_enough, key=lambda slot: (self._bytes[slot], slot))
        if self._free:
            return max(self._free, key=lambda slot: (self._bytes[slot], slot))
        self._bytes.append(0)
        return len(self._bytes) - 1


class BufferPool:
    """Hands out memory of a device, which is kept from batch to batch."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._slots = BufferSlots()

    def allocate(self, element_type: int, shape: Shape) -> Buffer:
        """Return a buffer of `shape` and ONNX `element_type`, uninitialized."""
        needed = math.prod(shape) * helper.tensor_dtype_to_np_dtype(element_type).itemsize
        slot = self._slots.take(needed)
        return Buffer(slot, self._device.allocate(str(slot), element_type, shape), element_type, shape)

    def free(self, buffer: Buffer) -> None:
        """Let the memory of `buffer` be used again."""
        self._slots.free(buffer.slot)

    def free_all(self) -> None:
        """Let all memory be used again."""
        self._slots.free_all()
