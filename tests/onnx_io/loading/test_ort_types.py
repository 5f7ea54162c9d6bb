"""Types behind operators without shape inference come from ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from tests.networks import weight
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.plan import plan_quantization


def behind(path: Path, op_type: str, domain: str, external: bool = False) -> Model:
    """x -> Conv c -> an operator -> Conv y"""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node(op_type, ["c"], ["g"], domain=domain),
        helper.make_node("Conv", ["g", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 160, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight("w", 160, 160, 1, 1)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(domain or "com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.save(proto, path, save_as_external_data=external, location="weights.bin")
    return load_model(path)


@pytest.mark.parametrize("external", [False, True])
def test_a_contrib_operator_is_quantized_around(tmp_path: Path, external: bool) -> None:
    model = behind(tmp_path / "m.onnx", "Gelu", "com.microsoft", external)
    value = next(value for node in model.to_ir().graph for value in node.outputs if value.name == "g")
    assert (value.dtype, value.shape) == (ir.DataType.FLOAT, model.to_ir().graph.inputs[0].shape)
    assert [node.is_int8 for node in plan_quantization(model.to_ir().graph).nodes] == [True, True]


def test_the_float16_model_around_a_contrib_operator_runs(tmp_path: Path) -> None:
    """The operator itself stays float32."""
    model = behind(tmp_path / "m.onnx", "Gelu", "com.microsoft")
    quantized = insert_qdq(model, CalibrationTable({"x": 3.0, "g": 3.0})).model
    converted = convert_to_float16(quantized, {"x": 3.0, "c": 30.0, "g": 30.0, "y": 30.0})
    assert [node.op_type for node in converted.fp32_nodes] == ["Gelu"]
    save_model(converted.model, tmp_path / "half.onnx")
    with onnx_runner(tmp_path / "half.onnx"):
        pass


def test_behind_a_plugin_the_unknown_type_is_the_reason(tmp_path: Path) -> None:
    first, second = plan_quantization(behind(tmp_path / "m.onnx", "Gate_TRT", "").to_ir().graph).nodes
    assert first.is_int8
    assert "the type of its input 'g' is unknown" in second.reason
