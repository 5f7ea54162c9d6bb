"""Large models whose INT8 weights are dequantized before ONNX Runtime loads them."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import sequences, transformer_block
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import OutputError
from trt_ptq.evaluation.runners import dequantized_weights
from trt_ptq.evaluation.runners import onnx_runner as onnx_runners
from trt_ptq.evaluation.runners.dequantized_weights import dequantize_weights
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.onnx_io import save
from trt_ptq.onnx_io.load import load_model, read_ir
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.node_selection import select_weight_only
from trt_ptq.types import Array


@pytest.fixture(params=["fp32", "fp16"])
def quantized(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A transformer block with INT8 weights, the rest in the precision of the parameter."""
    model = load_model(transformer_block(tmp_path / "m.onnx"))
    qdq = insert_qdq(model, CalibrationTable({}), weight_only=select_weight_only(model.to_ir().graph, ["*"])).model
    save_model(convert_to_float16(qdq).model if request.param == "fp16" else qdq, tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


def output(path: Path) -> Array:
    with onnx_runner(path) as runner:
        return next(iter(runner.infer({"x": sequences(4, 10)}, "x").values()))


def test_outputs_stay_the_same(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = output(quantized)
    copied = []

    def recorded(model: ir.Model) -> None:
        dequantize_weights(model)
        copied.append([node.op_type for node in model.graph])

    monkeypatch.setattr(onnx_runners, "dequantize_weights", recorded)
    monkeypatch.setattr(dequantized_weights, "_MANY_VALUES", 1)
    np.testing.assert_allclose(output(quantized), before, rtol=1e-3, atol=1e-3)
    assert len(copied) == 1
    assert "DequantizeLinear" not in copied[0]


def test_few_weights_are_left_to_onnx_runtime(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runners, "dequantize_weights", None)  # which cannot be called
    output(quantized)


def test_a_full_disk_is_not_the_fault_of_the_model(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dequantized_weights, "_MANY_VALUES", 1)
    monkeypatch.setattr(save, "write_two_files", full)
    with pytest.raises(OutputError, match="No space left on device"):
        output(quantized)


@pytest.mark.parametrize(("axis", "scales"), [(0, [0.5, 2]), (1, [0.5, 2, 3]), (1, 0.25)], ids=["0", "1", "by tensor"])
def test_weights_are_multiplied_by_their_scales(tmp_path: Path, axis: int, scales: list[float] | float) -> None:
    integers = np.array([[1, -2, 127], [4, 5, -127]], np.int8)
    weight = numpy_helper.from_array(integers, "w")
    scale = numpy_helper.from_array(np.array(scales, np.float32), "s")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=axis),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [weight, scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    model = read_ir(tmp_path / "m.onnx")
    dequantize_weights(model)
    tensor = model.graph.initializers["d"].const_value
    assert tensor is not None
    factors = np.array(scales, np.float32)
    expected = integers * (factors if axis else factors[:, None])
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert "w" not in model.graph.initializers


@pytest.mark.parametrize("point", [np.int8(3), np.uint8(0)], ids=["asymmetric", "unsigned"])
def test_others_are_left_as_they_are(tmp_path: Path, point: np.int8 | np.uint8) -> None:
    weight = numpy_helper.from_array(np.ones((2, 2), point.dtype), "w")
    constants = [
        weight,
        numpy_helper.from_array(np.array(1, np.float32), "s"),
        numpy_helper.from_array(np.array(point), "z"),
    ]
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    add = helper.make_node("Neg", ["y"], ["n"])
    n = helper.make_tensor_value_info("n", TensorProto.FLOAT, None)
    graph = helper.make_graph([node, add], "g", [], [n], constants, value_info=[y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    model = read_ir(tmp_path / "m.onnx")
    dequantize_weights(model)
    assert [one.op_type for one in model.graph] == ["DequantizeLinear", "Neg"]
