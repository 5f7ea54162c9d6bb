"""Values that try every corner of a float format, for the torch accumulator on the CPU and on a card."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.calibrators.measured import measure
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.calibrators.statistics.torch_accumulator import TorchAccumulator
from trt_ptq.types import Array

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SPECIAL = {
    "float32": [0, 1, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001],
    "float16": [0, 1, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x7C00, 0x7E00, 0x7C01],
    "bfloat16": [0, 1, 0x007F, 0x0080, 0x3F80, 0x7F7F, 0x7F80, 0x7FC0, 0x7F81],
}


def _bits(dtype: str) -> st.SearchStrategy[Any]:
    word = np.uint32 if dtype == "float32" else np.uint16
    sign = int(np.iinfo(word).max) // 2 + 1
    special = [bits | at for bits in _SPECIAL[dtype] for at in (0, sign)]
    some = st.one_of(st.sampled_from(special), st.integers(0, int(np.iinfo(word).max)))
    # Often one sign only, and often of one magnitude, so that ranges are one-sided and grow from batch to batch.
    narrow = st.integers(0, sign - 1).flatmap(lambda low: st.integers(low, min(low + sign // 64, sign - 1)))
    return st.one_of(*(arrays(word, st.integers(0, 50), elements=elements) for elements in (some, narrow)))


def batches(dtype: str) -> st.SearchStrategy[list[Array]]:
    """Lists of batches as the bits, unsigned, of values of `dtype`."""
    return st.lists(_bits(dtype), max_size=4)


def to_torch(bits: Array, dtype: str, device: str = "cpu") -> Any:
    """The torch tensor with these bits."""
    signed = bits.view(np.int32 if dtype == "float32" else np.int16)
    return torch.from_numpy(signed.copy()).to(device).view(DTYPES[dtype])


def measure_torch(*tensors: Any) -> TensorStatistics:
    """The statistics of all `tensors` together, counted by torch."""
    accumulator = TorchAccumulator()
    for tensor in tensors:
        accumulator.update(tensor)
    return accumulator.statistics()


def measure_numba(tensors: list[Any]) -> TensorStatistics:
    """The same, counted by numba after an exact conversion to float32."""
    return measure(*[tensor.cpu().float().numpy() for tensor in tensors])
