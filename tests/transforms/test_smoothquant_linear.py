"""Scales moved from a linear layer into the weights behind it: what the model computes stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.networks import weight
from tests.transforms.normalized import WIDTH, network, node
from tests.transforms.smoothed import UNEVEN, assert_same_function, found, initializer, scaled

GATED = [
    node("MatMul", "x w1", "gate"),
    node("Sigmoid", "gate", "sigmoid"),
    node("Mul", "gate sigmoid", "silu"),
    node("MatMul", "x w2", "up"),
    node("Mul", "silu up", "h"),
    node("MatMul", "h w3", "y"),
]
GATED_WEIGHTS = [weight("w1", WIDTH, WIDTH), weight("w2", WIDTH, WIDTH), weight("w3", WIDTH, 48)]


def test_the_gated_mlp_of_llama_is_scaled_by_the_weight_that_has_no_activation(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", GATED, GATED_WEIGHTS)
    after = scaled(path)
    assert_same_function(path, after)
    np.testing.assert_array_equal(initializer(after, "w1"), initializer(path, "w1"))
    np.testing.assert_array_equal(initializer(after, "w2"), initializer(path, "w2") / UNEVEN)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Gelu", "Sigmoid"])
def test_a_linear_layer_is_scaled_with_the_next_where_what_is_between_scales_too(
    tmp_path: Path, activation: str
) -> None:
    nodes = [
        node("MatMul", "x w1", "m"),
        node("Add", "b1 m", "a"),
        node(activation, "a", "h"),
        node("MatMul", "h w2", "y"),
    ]
    weights = [weight("w1", WIDTH, WIDTH), weight("b1", WIDTH), weight("w2", WIDTH, 48)]
    path = network(tmp_path / "m.onnx", nodes, weights, opset=20)
    if activation.endswith("Relu"):
        assert found(path) == {"h": ["y"]}
        assert_same_function(path, scaled(path))
    else:
        assert not found(path)


def test_gemm_is_scaled_with_its_bias(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w1 b1", "m", transB=1), node("Relu", "m", "h"), node("Gemm", "h w2", "y")]
    weights = [weight("w1", WIDTH, WIDTH), weight("b1", WIDTH), weight("w2", WIDTH, 48)]
    path = network(tmp_path / "m.onnx", nodes, weights, rank=2)
    assert_same_function(path, scaled(path), rank=2)


def test_a_product_whose_factors_are_read_elsewhere_too_makes_no_pair(tmp_path: Path) -> None:
    nodes = [*GATED[3:4], node("Mul", "x up", "h"), node("MatMul", "h w3", "z"), node("Add", "up up", "y")]
    path = network(tmp_path / "m.onnx", nodes, GATED_WEIGHTS[1:], "y z")
    assert not found(path)


def test_the_output_of_attention_is_divided_by_a_mul(tmp_path: Path) -> None:
    """The values come from a cache, which must stay as it is."""
    nodes = [
        node("MatMul", "x x_t", "scores"),
        node("Softmax", "scores", "probabilities", axis=-1),
        node("MatMul", "probabilities x", "context"),
        node("Transpose", "x", "x_t", perm=[0, 2, 1]),
        node("Identity", "context", "h"),
        node("MatMul", "h w", "y"),
        node("Relu", "h", "z"),
    ]
    path = network(tmp_path / "m.onnx", [nodes[3], *nodes[:3], *nodes[4:]], [weight("w", WIDTH, 48)], "y z")
    assert found(path) == {"h": ["y"]}
    after = scaled(path)
    assert_same_function(path, after)
    inputs = {one.output[0]: list(one.input) for one in onnx.load(after).graph.node}
    assert (inputs["y"], inputs["z"]) == (["h.smoothed", "w"], ["h"])
    np.testing.assert_array_equal(initializer(after, "w"), initializer(path, "w") * UNEVEN[:, None])
