"""Quantization scales in float16."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trt_ptq.fp16.qdq_scales import float16_holds, rescale


@given(st.floats(2.0**-17, 100, width=32))
def test_float16_represents_every_usual_scale(scale: float) -> None:
    assert float16_holds(np.array(scale, np.float32))


def test_float16_cannot_represent_a_scale_between_its_smallest_steps() -> None:
    steps = np.array([3 * 2.0**-24, 3.5 * 2.0**-24, 1e-9, 1e5], np.float32)
    assert float16_holds(steps).tolist() == [True, False, False, False]


@given(arrays(np.float32, 4, elements=st.floats(2.0**-23, 1, width=32)), arrays(np.int8, (2, 4, 3)))
def test_a_rescaled_weight_is_off_by_no_more_than_half_a_step_more(scales: np.ndarray, values: np.ndarray) -> None:
    values = np.clip(values, -127, 127)
    rescaled = rescale(values, scales, axis=1)
    assert rescaled is not None
    again, float16_scales = rescaled
    assert np.abs(again.astype(int)).max() <= 127
    before = values * scales.astype(np.float64)[:, None]
    after = again * float16_scales.astype(np.float64)[:, None]
    assert (np.abs(after - before) <= 0.5001 * float16_scales.astype(np.float64)[:, None]).all()


def test_values_are_unchanged_if_float16_represents_their_scale() -> None:
    values = np.array([[127, -3], [100, 7]], np.int8)
    rescaled = rescale(values, np.array([0.01, 3.5 * 2.0**-24], np.float32), axis=0)
    assert rescaled is not None
    assert rescaled[0].tolist() == [[127, -3], [88, 6]]  # 3.5 / 4 of the second row


def test_scales_below_float16_are_refused() -> None:
    assert rescale(np.ones((2, 2), np.int8), np.array([0.01, 1e-9], np.float32), axis=0) is None
