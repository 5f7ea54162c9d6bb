"""Memory for batches whose inputs may be empty, on buffers that allocate nothing smaller than a byte, as pycuda's."""

from __future__ import annotations

import numpy as np

from trt_ptq.calibrators.tensorrt.device_memory.buffers import Bytes, DoubleBuffer


class HostBuffers:
    """Buffers in host memory; a pointer is an index into `arrays`."""

    def __init__(self) -> None:
        self.arrays: list[Bytes] = []

    def allocate(self, size_bytes: int) -> int:
        assert size_bytes > 0
        self.arrays.append(np.zeros(size_bytes, np.uint8))
        return len(self.arrays) - 1

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        assert size_bytes > 0
        return np.zeros(size_bytes, np.uint8)

    def upload(self, array: Bytes, pointer: int) -> None:
        self.arrays[pointer][:] = array

    def synchronize(self) -> None:
        pass

    def memory(self) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        pass


def test_an_empty_input_has_an_address_and_is_not_copied() -> None:
    buffers = HostBuffers()
    double_buffer = DoubleBuffer(buffers, {"past": 0, "ids": 16})
    for value in (1, 2, 3):
        ids = np.full(2, value, np.int64)
        pointers = double_buffer.upload({"past": np.zeros((1, 3, 0, 8), np.float32), "ids": ids})
        assert buffers.arrays[pointers["ids"]].view(np.int64).tolist() == [value, value]
        assert pointers["past"] != pointers["ids"]
