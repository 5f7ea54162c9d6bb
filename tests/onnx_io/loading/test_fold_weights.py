"""Weights that are computed from constants are quantized like those that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import images, weight
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import Batch

NODE = helper.make_node
CASES = {
    "weight normalization": [
        NODE("ReduceL2", ["w"], ["norm"], axes=[1, 2, 3]),
        NODE("Div", ["w", "norm"], ["unit"]),
        NODE("Mul", ["unit", "gain"], ["weight"]),
    ],
    "slice": [NODE("Slice", ["w", "zero", "sixteen"], ["weight"])],
    "transpose of a sum": [
        NODE("Add", ["w", "gain"], ["sum"]),
        NODE("Slice", ["sum", "zero", "sixteen"], ["square"]),
        NODE("Transpose", ["square"], ["weight"], perm=[1, 0, 2, 3]),
    ],
    "constant numbers": [
        NODE("Constant", [], ["two"], value_float=2.0),
        NODE("Mul", ["w", "two"], ["weight"]),
    ],
}


def saved(path: Path, nodes: Sequence[onnx.NodeProto], external: bool = False) -> Path:
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 8, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    constants = [
        weight("w", 32, 16, 3, 3),
        numpy_helper.from_array(np.full((1, 1, 1, 1), 1.5, np.float32), "gain"),
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array([16]), "sixteen"),
    ]
    graph = helper.make_graph([*nodes, NODE("Conv", ["x", "weight"], ["y"])], "g", ends[:1], ends[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, path, save_as_external_data=external, location="weights.bin", size_threshold=100)
    return path


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_computed_weight_is_quantized(tmp_path: Path, case: str, external: bool) -> None:
    path = saved(tmp_path / "m.onnx", CASES[case], external)
    model = load_model(path)
    assert [node.op_type for node in model.proto.graph.node] == ["Conv"]
    assert {tensor.name for tensor in model.proto.graph.initializer} & {"weight", "w", "norm"} == {"weight"}
    save_model(insert_qdq(model, CalibrationTable({"x": 1.0})).model, tmp_path / "int8.onnx")
    expected, actual = (
        ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": images(2)})[0]
        for file in (path, tmp_path / "int8.onnx")
    )
    assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > 0.999


def test_a_constant_with_other_readers_stays(tmp_path: Path) -> None:
    nodes = [
        *CASES["slice"],
        NODE("ReduceMax", ["w"], ["largest"], keepdims=0),
        NODE("Mul", ["x", "largest"], ["scaled"]),
    ]
    model = load_model(saved(tmp_path / "m.onnx", nodes))
    assert [node.op_type for node in model.proto.graph.node] == ["ReduceMax", "Mul", "Conv"]
    assert {"w", "weight"} <= {tensor.name for tensor in model.proto.graph.initializer}


def test_random_weights_are_not_folded(tmp_path: Path) -> None:
    nodes = [NODE("RandomNormalLike", ["w"], ["noise"]), NODE("Add", ["w", "noise"], ["weight"])]
    assert len(load_model(saved(tmp_path / "m.onnx", nodes)).proto.graph.node) == 3


def test_views_of_stored_weights_stay(tmp_path: Path) -> None:
    nodes = [NODE("Identity", ["w"], ["same"]), NODE("Cast", ["same"], ["weight"], to=TensorProto.FLOAT)]
    assert len(load_model(saved(tmp_path / "m.onnx", nodes)).proto.graph.node) == 3


def loaded(path: Path, nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> onnx.GraphProto:
    """The graph of a model x -> y at loading; it computes what its file computes."""
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    constants = (*constants, numpy_helper.from_array(np.full(1, 1.5, np.float32), "gain"))
    graph = helper.make_graph(nodes, "g", ends, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = load_model(path)
    assert check_loaded(model, [Batch({"x": images(2)}, "batch 0")]) == []
    return model.proto.graph


def test_a_computed_bias_is_folded(tmp_path: Path) -> None:
    nodes = [NODE("Mul", ["b", "gain"], ["bias"]), NODE("Conv", ["x", "w", "bias"], ["y"])]
    graph = loaded(tmp_path / "m.onnx", nodes, weight("w", 16, 16, 3, 3), weight("b", 16))
    assert [node.op_type for node in graph.node] == ["Conv"]


def test_a_bias_behind_a_view_is_folded(tmp_path: Path) -> None:
    nodes = [NODE("Identity", ["b"], ["bias"]), NODE("Conv", ["x", "w", "bias"], ["y"])]
    graph = loaded(tmp_path / "m.onnx", nodes, weight("w", 16, 16, 3, 3), weight("b", 16))
    assert [node.op_type for node in graph.node] == ["Conv"]


def test_what_is_added_to_a_matmul_is_folded(tmp_path: Path) -> None:
    nodes = [
        NODE("Mul", ["b", "gain"], ["bias"]),
        NODE("MatMul", ["x", "w"], ["product"]),
        NODE("Add", ["product", "bias"], ["y"]),
    ]
    graph = loaded(tmp_path / "m.onnx", nodes, weight("w", 8, 4), weight("b", 4))
    assert [node.op_type for node in graph.node] == ["MatMul", "Add"]


def test_a_computed_embedding_table_is_folded(tmp_path: Path) -> None:
    nodes = [
        NODE("Mul", ["rows", "gain"], ["table"]),
        NODE("Abs", ["x"], ["positive"]),
        NODE("Cast", ["positive"], ["ids"], to=TensorProto.INT64),
        NODE("Gather", ["table", "ids"], ["y"]),
    ]
    graph = loaded(tmp_path / "m.onnx", nodes, weight("rows", 8, 4))
    assert [node.op_type for node in graph.node] == ["Abs", "Cast", "Gather"]
