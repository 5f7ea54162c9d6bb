"""Concat, pooling and Resize: when they propagate quantization, and with which scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tests.networks import CHANNELS, weight
from tests.qdq.patterns.converted import PADS, Convert, conv, node, weights_of


def test_the_inputs_of_a_concat_have_the_scale_of_its_output_wherever_they_are_read(convert: Convert) -> None:
    nodes = [
        conv("x", "a"),
        node("Relu", ["a"], ["ra"]),
        conv("ra", "b"),
        node("Relu", ["b"], ["rb"]),
        node("Concat", ["ra", "rb"], ["cat"], axis=1),
        node("Conv", ["cat", "w_y"], ["y"]),
    ]
    result = convert(nodes, [*weights_of("a", "b"), weight("w_y", 32, 2 * CHANNELS, 1, 1)])
    assert result.pairs == {("x", "a"), ("ra", "b"), ("ra", "cat"), ("rb", "cat"), ("cat", "y")}
    assert result.scales["ra"] == result.scales["rb"] == result.scales["cat"]
    assert result.noise < 1e-3


def test_a_concat_with_a_float_reader_is_not_quantized(convert: Convert) -> None:
    nodes = [
        conv("x", "a"),
        node("Concat", ["a", "x"], ["cat"], axis=1),
        node("Conv", ["cat", "w_b"], ["b"]),
        node("Softmax", ["cat"], ["s"], axis=1),
        node("Mul", ["b", "s"], ["y"]),
    ]
    result = convert(nodes, [*weights_of("a"), weight("w_b", 2 * CHANNELS, 2 * CHANNELS, 1, 1)])
    assert result.float_reasons["cat"] == "not all of its consumers run in INT8"
    assert result.pairs == {("x", "a"), ("cat", "b")}


def test_the_later_of_two_concats_of_a_tensor_sets_its_scale(convert: Convert) -> None:
    nodes = [
        conv("x", "a"),
        conv("x", "b"),
        node("Concat", ["a", "b"], ["first"], axis=1),
        node("Conv", ["first", "w_c"], ["c"]),
        node("Concat", ["a", "c"], ["second"], axis=1),
        node("Conv", ["second", "w_y"], ["y"]),
    ]
    weights = [weight("w_c", CHANNELS, 2 * CHANNELS, 1, 1), weight("w_y", 32, 2 * CHANNELS, 1, 1)]
    result = convert(nodes, [*weights_of("a", "b"), *weights])
    assert result.float_reasons == {"first": "its input 'a' has the scale of another Concat"}
    assert result.scales["a"] == result.scales["c"] == result.scales["second"]
    assert result.pairs == {("x", "a"), ("x", "b"), ("first", "c"), ("a", "second"), ("c", "second"), ("second", "y")}


def test_nested_concats_have_one_scale(convert: Convert) -> None:
    nodes = [
        conv("x", "a"),
        conv("x", "b"),
        node("Concat", ["a", "b"], ["inner"], axis=1),
        node("Concat", ["inner", "x"], ["outer"], axis=1),
        node("Conv", ["outer", "w_y"], ["y"]),
    ]
    result = convert(nodes, [*weights_of("a", "b"), weight("w_y", 32, 3 * CHANNELS, 1, 1)])
    assert len(set(result.scales.values())) == 1
    assert result.plan.activations == ("outer",)


def test_spatial_pyramid_pooling_has_one_scale(convert: Convert) -> None:
    """The pooled tensor and its max-pools meet in a Concat."""
    pool: dict[str, Any] = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}
    nodes = [
        conv("x", "c"),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p1"], **pool),
        node("MaxPool", ["p1"], ["p2"], **pool),
        node("Concat", ["r", "p1", "p2"], ["cat"], axis=1),
        node("Conv", ["cat", "w_y"], ["y"]),
    ]
    result = convert(nodes, [*weights_of("c"), weight("w_y", 32, 3 * CHANNELS, 1, 1)])
    assert len({result.scales[name] for name in ("r", "p1", "p2", "cat")}) == 1
    assert {("r", "p1"), ("p1", "p2")} < result.pairs


def test_a_max_pool_propagates_quantization_with_one_scale(convert: Convert) -> None:
    nodes = [
        conv("x", "c"),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("p", "y"),
    ]
    result = convert(nodes, weights_of("c", "y"))
    assert result.pairs == {("x", "c"), ("r", "p"), ("p", "y")}
    assert result.scales["r"] == result.scales["p"]
    assert result.plan.range_source("r") == "p"


def test_a_max_pool_whose_input_has_other_readers_takes_the_input_s_range(convert: Convert) -> None:
    """Negative values that the pool drops matter to the others."""
    nodes = [
        conv("x", "c"),
        node("MaxPool", ["c"], ["p"], **PADS),
        conv("c", "d"),
        conv("p", "q"),
        node("Mul", ["d", "q"], ["y"]),
    ]
    result = convert(nodes, weights_of("c", "d", "q"))
    assert result.plan.range_source("p") == "c"
    assert result.scales["p"] == result.scales["c"]


@pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool"])
def test_an_average_pool_has_a_scale_before_and_one_behind(convert: Convert, op: str) -> None:
    attributes: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]} if op == "AveragePool" else {}
    nodes = [
        conv("x", "c"),
        node("Relu", ["c"], ["r"]),
        node(op, ["r"], ["p"], **attributes),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w_y"], ["y"], transB=1),
    ]
    features = CHANNELS * (16 if op == "AveragePool" else 1)
    result = convert(nodes, [*weights_of("c"), weight("w_y", 32, features)])
    assert result.pairs == {("x", "c"), ("r", "p"), ("f", "y")}
    assert result.scales["r"] > result.scales["f"]
    assert result.noise < 1e-3


@pytest.mark.parametrize(("mode", "int8"), [("nearest", True), ("linear", False)])
def test_a_resize_propagates_quantization_if_it_selects_values(convert: Convert, mode: str, int8: bool) -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    nodes = [
        conv("x", "c"),
        node("Resize", ["c", "", "scales"], ["u"], mode=mode),
        conv("u", "y"),
    ]
    result = convert(nodes, [*weights_of("c", "y"), scales])
    assert (("c", "u") in result.pairs) == int8
    assert ("u" in result.float_reasons) == (not int8)
