"""A Q/DQ model of ours gives ranges under the names of the float model, whatever was rewritten in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from tests.networks import weight
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.plan import plan_quantization
from trt_ptq.qdq.ranges.read_ranges import read_qdq_ranges
from trt_ptq.transforms.bias_correction import correct_bias

NODE = helper.make_node


def saved(
    path: Path, nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",), dtype: int = TensorProto.FLOAT
) -> Model:
    """x [n, 32] -> `outputs` with weights v and w [32, 32]."""
    ends = [helper.make_tensor_value_info("x", dtype, ["n", 32])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 32]) for name in outputs]
    graph = helper.make_graph(nodes, "g", ends, results, [weight("v", 32, 32), weight("w", 32, 32)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


def names_read(quantized: ir.Model, path: Path) -> set[str]:
    save_model(quantized, path)
    return set(read_qdq_ranges(path).table.amax)


BYTES = [NODE("Cast", ["x"], ["a"], to=TensorProto.FLOAT), NODE("MatMul", ["a", "w"], ["y"])]
CHAIN = [NODE("MatMul", ["x", "v"], ["a"]), NODE("MatMul", ["a", "w"], ["y"])]


@pytest.mark.parametrize("scale", [1.0, 1e-7], ids=["float16 scale", "float32 scale"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("nodes", "outputs", "dtype"),
    [
        (CHAIN, ("y",), TensorProto.FLOAT),
        (CHAIN, ("y", "a"), TensorProto.FLOAT),
        (BYTES, ("y",), TensorProto.UINT8),
    ],
    ids=["chain", "an output that is read", "a cast of the float model"],
)
def test_names_are_those_of_the_float_model(
    tmp_path: Path, nodes: list[onnx.NodeProto], outputs: tuple[str, ...], dtype: int, half: bool, scale: float
) -> None:
    model = saved(tmp_path / "m.onnx", nodes, outputs, dtype)
    activations = plan_quantization(model.to_ir().graph).activations
    quantized = insert_qdq(model, CalibrationTable(dict.fromkeys(activations, scale))).model
    if half:
        quantized = convert_to_float16(quantized, {"x": 3.0, "a": 3.0, "y": 3.0}).model
    assert names_read(quantized, tmp_path / "int8.onnx") == set(activations)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("outputs", [("y",), ("y", "a")], ids=["inner", "output"])
def test_corrected_sums_have_the_name_of_what_they_correct(
    tmp_path: Path, outputs: tuple[str, ...], half: bool
) -> None:
    model = saved(tmp_path / "m.onnx", CHAIN, outputs)
    quantized = insert_qdq(model, CalibrationTable({"x": 1.0, "a": 1.0}))
    shifts = {name: np.full(32, 0.1, np.float32) for name in ("a", "y")}
    corrected, count = correct_bias(quantized, shifts)
    assert count == 2
    result = corrected.model
    assert {"node_of_y"} <= {node.name for node in result.graph}  # as TensorRT calls it in the float model
    if half:
        amax = dict.fromkeys(("x", "a", "y", "a.corrected", "y.corrected"), 3.0)
        result = convert_to_float16(result, amax).model
    assert names_read(result, tmp_path / "int8.onnx") == {"x", "a"}


def test_a_name_of_the_float_model_that_looks_like_ours_stays(tmp_path: Path) -> None:
    nodes = [NODE("MatMul", ["x", "v"], ["a.float16"]), NODE("MatMul", ["a.float16", "w"], ["y"])]
    model = saved(tmp_path / "m.onnx", nodes)
    quantized = insert_qdq(model, CalibrationTable({"x": 1.0, "a.float16": 1.0})).model
    assert names_read(quantized, tmp_path / "int8.onnx") == {"x", "a.float16"}
