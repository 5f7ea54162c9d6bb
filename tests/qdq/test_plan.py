"""Which nodes run in INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from tests.networks import CHANNELS, image_input, weight, write
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.plan import QuantizationPlan, plan_quantization


def plan_of(path: Path) -> QuantizationPlan:
    return plan_quantization(load_model(path).to_ir().graph)


def reasons(plan: QuantizationPlan) -> dict[str, str]:
    return {node.output: node.reason for node in plan.nodes if not node.is_int8}


def test_inputs_of_weighted_ops_are_quantized_and_outputs_are_not(cnn: Model) -> None:
    plan = plan_quantization(cnn.to_ir().graph)
    assert plan.activations == ("x", "r1", "f")
    assert all(node.is_int8 for node in plan.nodes)


def test_the_shortcut_of_a_residual_add_is_quantized(cnn: Model) -> None:
    plan = plan_quantization(cnn.to_ir().graph)
    assert [(read.node_output, read.index, read.tensor) for read in plan.inputs if read.node_output == "a"] == [
        ("a", 1, "r1")
    ]


def test_the_add_is_fused_into_the_later_convolution(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["projection"]),
        helper.make_node("Conv", ["x", "w2"], ["main"]),
        helper.make_node("Add", ["projection", "main"], ["y"]),
    ]
    weights = [weight("w1", CHANNELS, CHANNELS, 1, 1), weight("w2", CHANNELS, CHANNELS, 1, 1)]
    plan = plan_of(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    assert [read.tensor for read in plan.inputs if read.node_output == "y"] == ["projection"]


def test_the_add_is_not_fused_into_a_convolution_with_other_readers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Add", ["c", "x"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, [weight("w1", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["y", "s"])
    assert "y" not in {read.node_output for read in plan_of(path).inputs}


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "axis"),
    [
        ("Conv", {}, (32, CHANNELS, 1, 1), 0),
        ("Conv", {"group": CHANNELS}, (CHANNELS, 1, 3, 3), 0),
        ("ConvTranspose", {}, (CHANNELS, 32, 2, 2), 1),
    ],
    ids=["conv", "depthwise", "transposed"],
)
def test_convolution_weights_get_scales_along_their_output_channels(
    tmp_path: Path, op: str, attributes: dict[str, Any], shape: tuple[int, ...], axis: int
) -> None:
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    plan = plan_of(write(tmp_path / "m.onnx", [node], [weight("w", *shape)], [image_input()], ["y"]))
    assert [read.axis for read in plan.inputs if read.tensor == "w"] == [axis]


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "axis"),
    [("Gemm", {"transB": 1}, (32, 64), 0), ("Gemm", {}, (64, 32), 1), ("MatMul", {}, (64, 32), 1)],
    ids=["gemm-transposed", "gemm", "matmul"],
)
def test_matrix_weights_get_scales_along_their_output(
    tmp_path: Path, op: str, attributes: dict[str, Any], shape: tuple[int, int], axis: int
) -> None:
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    plan = plan_of(write(tmp_path / "m.onnx", [node], [weight("w", *shape)], [rows], ["y"]))
    assert [read.axis for read in plan.inputs if read.tensor == "w"] == [axis]


def test_few_channels_are_excluded(tmp_path: Path) -> None:
    pixels = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = write(tmp_path / "m.onnx", [node], [weight("w", 32, 3, 3, 3)], [pixels], ["y"])
    assert "fewer than 16 channels" in reasons(plan_of(path))["y"]


def test_a_convolution_over_one_position_is_excluded(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["g"]), helper.make_node("Conv", ["g", "w"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", 32, CHANNELS, 1, 1)], [image_input()], ["y"])
    assert "matrix-vector" in reasons(plan_of(path))["y"]


def test_a_product_of_two_activations_is_excluded(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    assert reasons(plan_of(write(tmp_path / "m.onnx", [node], [], [image_input()], ["y"])))["y"] == (
        "both inputs are activations"
    )


def test_shape_computations_are_not_quantized(tmp_path: Path) -> None:
    """Shape -> Cast -> MatMul is float and has a weight, but is not an activation."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["sf"], to=TensorProto.FLOAT),
        helper.make_node("Tile", ["sf", "reps"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["m"]),
        helper.make_node("ReduceSum", ["m"], ["total"], keepdims=0),
        helper.make_node("Mul", ["x", "total"], ["y"]),
    ]
    reps = helper.make_tensor("reps", TensorProto.INT64, [1], [16])
    path = write(tmp_path / "m.onnx", nodes, [weight("w", 64, 32), reps], [image_input()], ["y"])
    assert plan_of(path).activations == ()
    assert "not a float32 activation" in reasons(plan_of(path))["m"]


def test_a_broadcasting_add_is_not_a_residual(tmp_path: Path) -> None:
    """The output of a convolution plus one value per channel."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["g"]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "g"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["y"])
    assert plan_of(path).activations == ("x",)


def test_a_node_can_be_excluded(cnn: Model) -> None:
    plan = plan_quantization(cnn.to_ir().graph, nodes_to_exclude=["c1"])
    assert reasons(plan) == {"c1": "excluded from quantization"}
    assert plan.activations == ("r1", "f")


def test_the_residual_add_of_an_excluded_convolution_is_excluded_too(cnn: Model) -> None:
    plan = plan_quantization(cnn.to_ir().graph, nodes_to_exclude=["c2"])
    assert reasons(plan) == {"c2": "excluded from quantization", "a": "its convolution 'c2' does not run in INT8"}


def test_a_residual_add_alone_can_be_excluded(cnn: Model) -> None:
    plan = plan_quantization(cnn.to_ir().graph, nodes_to_exclude=["a"])
    assert reasons(plan) == {"a": "excluded from quantization"}


def test_excluding_nodes_does_not_change_the_candidates(cnn: Model) -> None:
    graph = cnn.to_ir().graph
    every = [node.output for node in plan_quantization(graph).nodes]
    for name in every:
        assert [node.output for node in plan_quantization(graph, nodes_to_exclude=[name]).nodes] == every


def test_an_unknown_node_is_refused_with_similar_names(cnn: Model) -> None:
    with pytest.raises(UsageError, match=r"nodes_to_exclude: no quantizable node has 'c22' .*\(most similar: 'c2'\)"):
        plan_quantization(cnn.to_ir().graph, nodes_to_exclude=["c22"])


def test_a_table_from_before_shared_ranges_still_works(tmp_path: Path) -> None:
    """An older table has ranges of its own for the inputs of a Concat, and none for those of an average pool."""
    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["a"]),
        helper.make_node("Conv", ["a", "wb"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "wd"], ["d"]),
        helper.make_node("AveragePool", ["d"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Conv", ["p", "wy"], ["y"]),
    ]
    weights = [weight("wa", CHANNELS, CHANNELS, 1, 1), weight("wb", CHANNELS, CHANNELS, 1, 1)]
    weights += [weight("wd", 32, 2 * CHANNELS, 1, 1), weight("wy", 32, 32, 1, 1)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    result = insert_qdq(model, CalibrationTable({"x": 1.0, "a": 2.0, "c": 8.0, "p": 4.0}))
    assert reasons(result.plan) == {"p": "'d' has no range in the table"}
    scale = result.model.graph.initializers["a.qdq.scale"].const_value
    assert scale is not None
    assert float(scale.numpy()) == pytest.approx(8 / 127)
