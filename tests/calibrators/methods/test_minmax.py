"""Min-max clips nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trt_ptq.calibrators.methods import MinMax
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator
from trt_ptq.types import Array


def amax(values: Array) -> float:
    accumulator = TensorAccumulator()
    accumulator.update(values)
    return MinMax().amax(accumulator.statistics())


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_is_the_largest_magnitude_bit_for_bit(values: Array) -> None:
    assert amax(values) == float(np.abs(values).max())


@pytest.mark.parametrize("values", [[], [0.0], [np.nan, np.inf]], ids=["no values", "dead", "nothing finite"])
def test_a_tensor_without_a_range_has_none(values: list[float]) -> None:
    assert amax(np.array(values, np.float32)) == 0


def test_nan_and_infinity_do_not_set_the_range() -> None:
    assert amax(np.array([1, -2, np.nan, np.inf, -np.inf], np.float32)) == 2


def test_published_scale_of_the_input_range_one() -> None:
    assert np.float32(amax(np.linspace(0, 1, 256)) / 127).tobytes()[::-1].hex() == "3c010204"
