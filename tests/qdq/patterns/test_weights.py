"""Weights of every kind: per channel, shared, behind views, embeddings."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import CHANNELS, weight
from tests.qdq.patterns.converted import Convert, conv, node, weights_of


def test_a_transposed_convolution_has_scales_along_its_outputs(convert: Convert) -> None:
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])]
    result = convert(nodes, [weight("w", CHANNELS, 32, 2, 2)])
    scales = {tensor.name: tensor.dims for tensor in onnx.load(result.path).graph.initializer}["w.int8.scale"]
    assert (list(scales), result.noise < 1e-3) == ([32], True)


def test_a_depthwise_convolution_has_a_scale_for_each_channel(convert: Convert) -> None:
    nodes = [conv("x", "y", "w", group=CHANNELS)]
    result = convert(nodes, [weight("w", CHANNELS, 1, 3, 3)])
    scales = {tensor.name: tensor.dims for tensor in onnx.load(result.path).graph.initializer}["w.int8.scale"]
    assert (list(scales), result.noise < 1e-3) == ([CHANNELS], True)


@pytest.mark.parametrize("views", [["Transpose"], ["Reshape", "Transpose"], ["Identity", "Transpose"]])
def test_a_weight_behind_a_view_is_stored_as_the_node_reads_it(convert: Convert, views: list[str]) -> None:
    nodes, name = [], "w"
    for view in views:
        inputs = [name, "rows"] if view == "Reshape" else [name]
        nodes.append(node(view, inputs, [f"{name}v"]))
        name += "v"
    stored = weight("w", 32, CHANNELS // 2, 2) if "Reshape" in views else weight("w", 32, CHANNELS)
    rows = numpy_helper.from_array(np.array([32, CHANNELS], np.int64), "rows")
    nodes.append(node("MatMul", ["x", name], ["y"]))
    data = np.random.default_rng(0).normal(size=(8, 4, CHANNELS)).astype(np.float32)
    tokens = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, CHANNELS])
    result = convert(nodes, [stored, rows], [tokens], {"x": data})
    graph = onnx.load(result.path).graph
    assert {node.op_type for node in graph.node} == {"QuantizeLinear", "DequantizeLinear", "MatMul"}
    assert {tuple(tensor.dims) for tensor in graph.initializer if tensor.name == f"{name}.int8"} == {(CHANNELS, 32)}
    assert result.noise < 1e-3


def test_a_view_of_a_weight_that_float_nodes_read_too_stays(convert: Convert) -> None:
    nodes = [
        node("Transpose", ["w"], ["wt"]),
        node("MatMul", ["x", "wt"], ["m"]),
        node("ReduceSum", ["wt"], ["total"], keepdims=0),
        node("Mul", ["m", "total"], ["y"]),
    ]
    data = np.random.default_rng(0).normal(size=(8, 4, CHANNELS)).astype(np.float32)
    tokens = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, CHANNELS])
    result = convert(nodes, [weight("w", 32, CHANNELS)], [tokens], {"x": data})
    assert "Transpose" in {node.op_type for node in onnx.load(result.path).graph.node}
    assert result.noise < 1e-3


def test_a_weight_that_nodes_with_one_axis_share_is_stored_once(convert: Convert) -> None:
    nodes = [conv("x", "c", "w"), node("Relu", ["c"], ["r"]), conv("r", "y", "w")]
    result = convert(nodes, [weight("w", CHANNELS, CHANNELS, 3, 3)])
    assert result.weights == {("w.int8", "c"), ("w.int8", "y")}


def test_the_rows_of_an_embedding_are_stored_in_int8(convert: Convert) -> None:
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 6])
    nodes = [node("Gather", ["table", "ids"], ["e"]), node("MatMul", ["e", "w"], ["y"])]
    feeds = {"ids": np.arange(48).reshape(8, 6) % 40}
    result = convert(nodes, [weight("table", 40, 32), weight("w", 32, 64)], [ids], feeds)
    assert result.weights == {("table.int8", "e"), ("w.int8", "y")}
    assert result.pairs == {("e", "y")}
    assert "table" not in {tensor.name for tensor in onnx.load(result.path).graph.initializer}
    assert result.noise < 1e-3


def test_a_look_up_by_shape_is_no_embedding(convert: Convert) -> None:
    nodes = [
        node("Shape", ["x"], ["shape"], start=1, end=2),
        node("Gather", ["table", "shape"], ["e"]),
        node("Reshape", ["e", "one_image"], ["p"]),
        node("Add", ["x", "p"], ["s"]),
        conv("s", "y"),
    ]
    to_image = numpy_helper.from_array(np.array([1, CHANNELS, 8, 8], np.int64), "one_image")
    result = convert(nodes, [weight("table", 20, CHANNELS * 64), to_image, *weights_of("y")])
    assert result.pairs == {("s", "y")}
    assert result.weights == {("w_y.int8", "y")}


def test_a_product_with_one_row_is_excluded(convert: Convert) -> None:
    row = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    nodes = [
        node("Gemm", ["x", "w"], ["g"]),
        node("Reshape", ["g", "rows"], ["r"]),
        node("MatMul", ["r", "w_y"], ["y"]),
    ]
    rows = numpy_helper.from_array(np.array([4, 32], np.int64), "rows")
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)}
    result = convert(nodes, [weight("w", 64, 128), rows, weight("w_y", 32, 32)], [row], feeds)
    assert result.float_reasons == {"g": "one row (matrix-vector product): no speedup from INT8"}
    assert result.pairs == {("r", "y")}
