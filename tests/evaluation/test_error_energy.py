"""What INT8 does to values, and how error and signal are added up."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from trt_ptq.errors import ModelError
from trt_ptq.evaluation.error_energy import ErrorEnergy, ErrorSplit, decibels, fake_quantize, sort_key

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=True)
SCALES = st.floats(2.0**-100, 2.0**60, width=32)


@lru_cache(maxsize=1)
def quantize_and_dequantize() -> ort.InferenceSession:
    """x [n], scale -> y, computed by ONNX Runtime."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pair",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("zero", TensorProto.INT8, [], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model.SerializeToString(), options)


@given(st.lists(FLOATS, min_size=1, max_size=40), SCALES)
def test_values_become_what_onnx_runtime_makes_of_them(values: list[float], scale: float) -> None:
    x, step = np.array(values, np.float32), np.float32(scale)
    ours = fake_quantize(x, step)
    theirs = quantize_and_dequantize().run(None, {"x": x, "scale": np.array(step)})[0]
    np.testing.assert_array_equal(ours, theirs)


@given(st.lists(st.integers(-600, 600), min_size=1, max_size=40))
def test_rounding_and_clipping_are_the_whole_error(quarters: list[int]) -> None:
    values, scale = np.array(quarters, np.float32) / 4, np.float32(1)
    split = ErrorSplit()
    split.add(values, scale)
    error = np.square(fake_quantize(values, scale) - values)
    beyond = (values > 127.5) | (values < -128.5)
    assert split.clipping == pytest.approx(float(error[beyond].sum()))
    assert split.rounding == pytest.approx(float(error[~beyond].sum()))


def test_the_worst_output_counts_over_all_batches() -> None:
    noise = ErrorEnergy()
    for scale in (1.0, 3.0):
        reference = np.full(4, scale, np.float32)
        noise.add("quiet", reference, reference)
        noise.add("loud", reference, reference + np.float32(0.5))
    assert noise.ratios() == {"quiet": 0.0, "loud": pytest.approx(8 * 0.25 / (4 * 1 + 4 * 9))}
    assert noise.worst() == noise.ratios()["loud"]


def test_nan_is_worse_than_any_number() -> None:
    noise = ErrorEnergy()
    noise.add("wrong", np.ones(2), np.array([1.0, math.nan]))
    noise.add("bad", np.ones(2), np.full(2, 1e30))
    assert math.isnan(noise.worst())
    assert sort_key(noise.worst()) == math.inf


def test_what_the_reference_does_not_know_is_not_compared() -> None:
    noise = ErrorEnergy()
    noise.add("y", np.array([math.nan, math.inf, 2.0]), np.array([0.0, 0.0, 3.0]))
    assert noise.worst() == 0.25


def test_noise_without_signal_is_infinite_and_nothing_at_all_is_none() -> None:
    noise = ErrorEnergy()
    noise.add("silent", np.zeros(3), np.zeros(3))
    assert noise.worst() == 0
    noise.add("hum", np.zeros(3), np.ones(3))
    assert noise.worst() == math.inf


def test_classes_count_by_how_many_differ() -> None:
    noise = ErrorEnergy()
    noise.add("class", np.array([1, 2, 3, 999]), np.array([1, 2, 3, 1]))
    assert noise.worst() == 0.25


def test_an_output_without_signal_does_not_outweigh_the_others() -> None:
    noise = ErrorEnergy()
    noise.add("dead", np.zeros(4, np.float32), np.ones(4, np.float32))
    noise.add("logits", np.ones(4, np.float32), np.full(4, 1.5, np.float32))
    assert noise.worst() == 0.25


def test_outputs_of_other_shapes_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"output 'boxes' has shape \[3\] in INT8 and \[4\] in FP32"):
        ErrorEnergy().add("boxes", np.ones(4), np.ones(3))


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, math.inf), (0.01, 20.0), (math.inf, -math.inf)])
def test_decibels(ratio: float, expected: float) -> None:
    assert decibels(ratio) == pytest.approx(expected)
