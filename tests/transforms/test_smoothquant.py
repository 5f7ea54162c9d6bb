"""Scales moved from a normalization into the weights behind it: what the model computes stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from tests.networks import weight
from tests.transforms.normalized import WIDTH, constant, gamma, layer_norm, network, node, outputs, tokens
from tests.transforms.smoothed import UNEVEN, assert_same_function, found, initializer, scaled, skipped, value_of
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.transforms.smoothquant import find_pairs, scale_pairs
from trt_ptq.types import Array

RMS = [
    node("Pow", "x two", "squared"),
    node("ReduceMean", "squared", "mean", axes=[-1]),
    node("Add", "mean tiny", "positive"),
    node("Sqrt", "positive", "root"),
    node("Reciprocal", "root", "inverse"),
    node("Mul", "x inverse", "unit"),
    node("Mul", "gamma unit", "h"),
]
RMS_WEIGHTS = [constant("two", 2), constant("tiny", 1e-6), gamma()]


def test_layer_normalization_is_divided_and_its_weights_are_multiplied(tmp_path: Path) -> None:
    path = layer_norm(tmp_path / "m.onnx")
    after = scaled(path)
    assert_same_function(path, after)
    x = tokens()
    np.testing.assert_allclose(value_of(after, "h", x) * UNEVEN, value_of(path, "h", x), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(initializer(after, "wk"), initializer(path, "wk") * UNEVEN[:, None])
    np.testing.assert_array_equal(initializer(after, "beta"), initializer(path, "beta") / UNEVEN)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scales=arrays(np.float32, WIDTH, elements=st.floats(2**-10, 2**10, width=32)))
def test_any_scales_leave_the_function_as_it_was(tmp_path: Path, scales: Array) -> None:
    path = layer_norm(tmp_path / "m.onnx")
    assert_same_function(path, scaled(path, scales))


@given(exponents=arrays(np.int32, WIDTH, elements=st.integers(-10, 10)))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_powers_of_two_leave_every_bit_as_it_was(tmp_path: Path, exponents: Array) -> None:
    path = layer_norm(tmp_path / "m.onnx")
    after = scaled(path, np.exp2(exponents).astype(np.float32))
    x = tokens()
    for old, new in zip(outputs(path, x=x), outputs(after, x=x), strict=True):
        np.testing.assert_array_equal(new, old)


def test_tensors_and_weights_keep_their_names(tmp_path: Path) -> None:
    path = layer_norm(tmp_path / "m.onnx")
    before, after = onnx.load(path).graph, onnx.load(scaled(path)).graph
    assert [list(one.output) for one in after.node] == [list(one.output) for one in before.node]
    assert {one.name for one in after.initializer} == {one.name for one in before.initializer}


def test_the_residual_of_a_post_norm_transformer_reads_what_it_read(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", "x gamma beta", "h", axis=-1),
        node("MatMul", "h w", "m"),
        node("Add", "m h", "y"),
    ]
    weights = [gamma(), weight("beta", WIDTH), weight("w", WIDTH, WIDTH)]
    path = network(tmp_path / "m.onnx", nodes, weights)
    after = scaled(path)
    assert_same_function(path, after)
    assert [list(one.input) for one in onnx.load(after).graph.node if one.op_type == "Add"] == [["m", "h.restored"]]


def test_rms_norm_of_llama_ends_in_a_multiplication(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", [*RMS, node("MatMul", "h w", "y")], [*RMS_WEIGHTS, weight("w", WIDTH, 48)])
    assert found(path) == {"h": ["y"]}
    assert_same_function(path, scaled(path))


def test_a_decomposed_layer_norm_ends_in_a_multiplication_and_an_addition(tmp_path: Path) -> None:
    nodes = [*RMS[:-1], node("Mul", "unit gamma", "m"), node("Add", "beta m", "h"), node("MatMul", "h w", "y")]
    path = network(tmp_path / "m.onnx", nodes, [*RMS_WEIGHTS, weight("beta", WIDTH), weight("w", WIDTH, 48)])
    assert found(path) == {"h": ["y"]}
    assert_same_function(path, scaled(path))


def test_gemm_may_hold_its_weight_transposed(tmp_path: Path) -> None:
    nodes = [node("LayerNormalization", "x gamma", "h"), node("Gemm", "h w b", "y", transB=1, alpha=0.5)]
    weights = [gamma(), weight("w", 48, WIDTH), weight("b", 48)]
    path = network(tmp_path / "m.onnx", nodes, weights, rank=2)
    after = scaled(path)
    assert_same_function(path, after, rank=2)
    np.testing.assert_array_equal(initializer(after, "w"), initializer(path, "w") * UNEVEN)


def test_a_weight_behind_a_transpose_is_scaled_along_its_other_axis(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", "x gamma", "h"),
        node("Transpose", "w", "wt", perm=[1, 0]),
        node("MatMul", "h wt", "y"),
    ]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", 48, WIDTH)])
    assert_same_function(path, scaled(path))


@pytest.mark.parametrize("transposed", [True, False])
def test_a_head_that_is_tied_to_the_embeddings_gets_a_weight_of_its_own(tmp_path: Path, transposed: bool) -> None:
    rows = WIDTH if transposed else 48
    nodes = [
        node("Gather", "w ids", "e", axis=0 if transposed else 1),
        node("LayerNormalization", "x gamma", "h"),
        *([node("Transpose", "w", "wt", perm=[1, 0])] if transposed else []),
        node("MatMul", "h wt" if transposed else "h w", "y"),
    ]
    weights = [
        gamma(),
        weight("w", *((48, WIDTH) if transposed else (WIDTH, 48))),
        numpy_helper.from_array(np.array([2, 5]), "ids"),
    ]
    path = network(tmp_path / "m.onnx", nodes, weights, "y e")
    after = scaled(path)
    assert_same_function(path, after)
    np.testing.assert_array_equal(initializer(after, "w"), initializer(path, "w"))
    untied = initializer(after, "w.untied")
    np.testing.assert_array_equal(untied, initializer(path, "w") * (UNEVEN if transposed else UNEVEN[:, None]))
    assert rows in untied.shape


def test_a_linear_layer_that_stays_float_is_scaled_too(tmp_path: Path) -> None:
    """Without it the router of a mixture of experts, of 4 columns, would need a multiplication."""
    nodes = [
        node("LayerNormalization", "x gamma", "h"),
        node("MatMul", "h w", "y"),
        node("MatMul", "h router", "z"),
    ]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", WIDTH, 48), weight("router", WIDTH, 4)], "y z")
    after = scaled(path)
    assert_same_function(path, after)
    assert len(onnx.load(after).graph.node) == 3


def test_a_gamma_that_two_normalizations_share_is_copied(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", "x gamma", "h"),
        node("MatMul", "h w", "m"),
        node("LayerNormalization", "m gamma", "y"),
    ]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", WIDTH, WIDTH)])
    after = scaled(path)
    assert_same_function(path, after)
    np.testing.assert_array_equal(initializer(after, "gamma"), initializer(path, "gamma"))


def test_a_weight_that_two_layers_share_is_scaled_once(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", "x gamma", "h"),
        node("MatMul", "h w", "y"),
        node("MatMul", "h w", "z"),
    ]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", WIDTH, 48)], "y z")
    after = scaled(path)
    assert_same_function(path, after)
    np.testing.assert_array_equal(initializer(after, "w"), initializer(path, "w") * UNEVEN[:, None])


def test_a_weight_that_is_read_as_it_is_and_transposed_is_left(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", "x gamma", "h"),
        node("MatMul", "h w", "y"),
        node("Transpose", "w", "t"),
        node("MatMul", "h t", "z"),
    ]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", WIDTH, WIDTH)], "y z")
    assert not found(path)
    assert skipped(path) == ["'h': the weight 'w' is read both with and without a transposition"]


def test_a_weight_that_is_read_behind_another_normalization_too_is_left(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", "x gamma", "h"),
        node("MatMul", "h w", "m"),
        node("LayerNormalization", "m gamma2", "h2"),
        node("MatMul", "h2 w", "y"),
    ]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), gamma("gamma2"), weight("w", WIDTH, WIDTH)])
    assert not found(path)
    assert skipped(path) == [
        "'h': the weight of 'm' cannot be scaled: 'w' has other readers, or a different number of rows",
        "'h2': the weight of 'y' cannot be scaled: 'w' has other readers, or a different number of rows",
    ]


def test_a_normalization_that_the_model_puts_out_is_left(tmp_path: Path) -> None:
    nodes = [node("LayerNormalization", "x gamma", "h"), node("MatMul", "h w", "y")]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", WIDTH, 48)], "y h")
    assert skipped(path) == ["'h': it is an output of the model"]


@pytest.mark.parametrize(
    ("last", "constants"),
    [
        (node("Mul", "x half", "h"), [constant("half", 0.5)]),
        (node("Mul", "x x", "h"), []),
        (node("Add", "x beta", "h"), [weight("beta", WIDTH)]),
        (node("Relu", "x", "h"), []),
    ],
    ids=["by one number", "by data", "shifted only", "no normalization"],
)
def test_what_does_not_scale_channels_makes_no_pair(
    tmp_path: Path, last: onnx.NodeProto, constants: list[onnx.TensorProto]
) -> None:
    path = network(tmp_path / "m.onnx", [last, node("MatMul", "h w", "y")], [*constants, weight("w", WIDTH, 48)])
    assert not found(path)
    assert not skipped(path)


def test_a_body_reads_what_it_read(tmp_path: Path) -> None:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    bodies = {
        "then_branch": helper.make_graph([node("Neg", "h", "r")], "then", [], [result]),
        "else_branch": helper.make_graph([node("Abs", "h", "r")], "else", [], [result]),
    }
    nodes = [
        node("LayerNormalization", "x gamma", "h"),
        node("MatMul", "h w", "y"),
        node("If", "yes", "z", **bodies),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", WIDTH, 48), yes], "y z")
    assert_same_function(path, scaled(path))


def test_external_weights_are_scaled_as_they_are_written(tmp_path: Path) -> None:
    nodes = [node("LayerNormalization", "x gamma", "h"), node("MatMul", "h w", "y")]
    path = network(tmp_path / "m.onnx", nodes, [gamma(), weight("w", WIDTH, 1024)])
    (tmp_path / "outside").mkdir()
    outside = tmp_path / "outside" / "m.onnx"
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location="m.data", size_threshold=1024)
    model = load_model(outside).to_ir()
    pairs, _ = find_pairs(model.graph)
    assert isinstance(pairs[0].linears[0].weight.const_value, ir.ExternalTensor)
    scale_pairs(model.graph, [(pairs[0], UNEVEN)])
    assert isinstance(pairs[0].linears[0].weight.const_value, ir.LazyTensor)
    save_model(model, tmp_path / "scaled.onnx")
    assert_same_function(path, tmp_path / "scaled.onnx")
