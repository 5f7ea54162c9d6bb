"""Convolutions and the operators that are fused into them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, numpy_helper

from tests.networks import CHANNELS, weight
from tests.qdq.patterns.converted import Convert, bias, conv, node, weights_of


@pytest.mark.parametrize(
    "activation",
    [
        [node("Relu", ["n"], ["r"])],
        [node("Clip", ["n", "low", "six"], ["r"])],
        [node("Sigmoid", ["n"], ["s"]), node("Mul", ["n", "s"], ["r"])],
        [node("HardSwish", ["n"], ["r"])],
        [node("HardSigmoid", ["n"], ["s"], alpha=1 / 6), node("Mul", ["n", "s"], ["r"])],
        [
            node("Add", ["n", "three"], ["p"]),
            node("Clip", ["p", "low", "six"], ["q"]),
            node("Mul", ["n", "q"], ["m"]),
            node("Div", ["m", "six"], ["r"]),
        ],
    ],
    ids=["relu", "relu6", "silu", "hard-swish", "hard-sigmoid", "hard-swish-spelled-out"],
)
def test_conv_batchnorm_activation_is_quantized_before_and_after_and_not_between(
    convert: Convert, activation: list[NodeProto]
) -> None:
    channels = [bias(name, CHANNELS) for name in ("scale", "shift", "mean")]
    constants = [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in (("low", 0), ("six", 6), ("three", 3))]
    variance = numpy_helper.from_array(np.ones(CHANNELS, np.float32), "variance")
    nodes = [
        conv("x", "c"),
        node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        *activation,
        conv("r", "y"),
    ]
    result = convert(nodes, [*weights_of("c", "y"), *channels, variance, *constants])
    assert result.pairs == {("x", "c"), ("r", "y")}
    assert result.noise < 1e-3


def test_the_shortcut_of_a_residual_block_has_the_pair_that_its_first_convolution_reads(convert: Convert) -> None:
    nodes = [
        conv("x", "c0"),
        node("Relu", ["c0"], ["r0"]),
        conv("r0", "c1"),
        node("Relu", ["c1"], ["r1"]),
        conv("r1", "c2"),
        node("Add", ["c2", "r0"], ["a"]),
        node("Relu", ["a"], ["r2"]),
        conv("r2", "y"),
    ]
    result = convert(nodes, weights_of("c0", "c1", "c2", "y"))
    assert result.pairs == {("x", "c0"), ("r0", "c1"), ("r0", "a"), ("r1", "c2"), ("r2", "y")}
    assert result.noise < 1e-3


@pytest.mark.parametrize("scaling", ["BatchNormalization", "bias"])
def test_a_residual_add_is_fused_into_a_scaled_convolution(convert: Convert, scaling: str) -> None:
    channels = [bias(name, CHANNELS) for name in ("scale", "shift", "mean")]
    variance = numpy_helper.from_array(np.ones(CHANNELS, np.float32), "variance")
    scaled = (
        node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"])
        if scaling == "BatchNormalization"
        else node("Add", ["c", "b"], ["n"])
    )
    nodes = [conv("x", "c"), scaled, node("Add", ["x", "n"], ["y"])]
    result = convert(nodes, [*weights_of("c"), *channels, variance, bias("b", 1, CHANNELS, 1, 1)])
    assert result.pairs == {("x", "c"), ("x", "y")}


def test_a_squeeze_and_excite_branch_is_not_quantized(convert: Convert) -> None:
    nodes = [
        conv("x", "c"),
        node("GlobalAveragePool", ["c"], ["g"]),
        node("Conv", ["g", "w_s"], ["s"]),
        node("Sigmoid", ["s"], ["e"]),
        node("Mul", ["c", "e"], ["m"]),
        conv("m", "y"),
    ]
    result = convert(nodes, [*weights_of("c", "y"), weight("w_s", CHANNELS, CHANNELS, 1, 1)])
    assert result.pairs == {("x", "c"), ("m", "y")}
    assert "matrix-vector" in result.float_reasons["s"]
    assert result.float_reasons["g"] == "not all of its consumers run in INT8"
