"""Memory for observed tensors."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from trt_ptq.calibration.devices import HostDevice
from trt_ptq.calibration.observed.tensor_buffers import BufferPool


def test_memory_in_use_is_not_handed_out_again() -> None:
    pool = BufferPool(HostDevice())
    first = pool.allocate(TensorProto.FLOAT, (4,))
    second = pool.allocate(TensorProto.FLOAT16, (4,))
    assert not np.shares_memory(first.array, second.array)
    assert second.array.dtype == np.float16


def test_the_smallest_free_buffer_that_is_large_enough_is_used_again() -> None:
    pool = BufferPool(HostDevice())
    buffers = [pool.allocate(TensorProto.FLOAT, (size,)) for size in (100, 10, 20)]
    for buffer in buffers:
        pool.free(buffer)
    again = pool.allocate(TensorProto.FLOAT, (3, 5))
    assert again.slot == buffers[2].slot
    assert again.array.shape == (3, 5)
    assert pool.allocate(TensorProto.FLOAT, (200,)).slot == buffers[0].slot  # the largest one grows


def test_a_batch_that_failed_leaves_no_buffer_in_use() -> None:
    pool = BufferPool(HostDevice())
    slots = {pool.allocate(TensorProto.FLOAT, (4,)).slot for _ in range(3)}
    pool.free_all()
    assert {pool.allocate(TensorProto.FLOAT, (4,)).slot for _ in range(3)} == slots
