"""A TensorAccumulator counts float16 and bfloat16 as the float32 numbers that they are."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ml_dtypes import bfloat16

from tests.calibrators.measured import measure
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator

HALVES = [np.dtype(np.float16), np.dtype(bfloat16)]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_16_bit_pattern_is_measured_as_the_float32_with_its_value(dtype: np.dtype[Any]) -> None:
    """Together, so that all finite values meet the widest range; and one by one, so that each meets its own."""
    values = np.arange(2**16, dtype=np.uint16).view(dtype)
    assert measure(values) == measure(values.astype(np.float32))
    for value in values[::127]:
        assert measure(np.array([value])) == measure(np.array([value], np.float32))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@given(st.lists(arrays(np.uint16, st.integers(0, 60), elements=st.integers(0, 2**16 - 1)), max_size=4))
def test_16_bit_batches_are_measured_as_their_float32(dtype: np.dtype[Any], bits: list[npt.NDArray[np.uint16]]) -> None:
    batches = [batch.view(dtype) for batch in bits]
    assert measure(*batches) == measure(*[batch.astype(np.float32) for batch in batches])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_16_bit_tensor_of_several_chunks_is_measured_as_its_float32(dtype: np.dtype[Any]) -> None:
    values = (np.random.default_rng(0).standard_normal(2**18 + 5) * np.geomspace(1e-6, 1e3, 2**18 + 5)).astype(dtype)
    values[[0, 2**17, -1]] = np.inf, np.nan, -np.inf
    assert measure(values) == measure(values.astype(np.float32))


def test_16_bit_values_are_not_copied_to_float32() -> None:
    accumulator = TensorAccumulator()
    values = np.ones(2**22, np.float16)
    accumulator.update(values)  # compiles
    tracemalloc.start()
    try:
        accumulator.update(values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < values.nbytes / 8
