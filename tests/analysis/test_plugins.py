"""What ONNX Runtime can run of a model with plugins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.networks import images, weight
from trt_ptq.analysis.plugins import unrunnable_values
from trt_ptq.calibration.tensors import runnable_outputs, select_calibration_tensors
from trt_ptq.errors import ModelError
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model


def detector(path: Path) -> Model:
    """x -> Conv -> features and -> plugin -> Relu -> boxes."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["features"]),
        helper.make_node("Decode_TRT", ["features"], ["decoded"]),
        helper.make_node("Relu", ["decoded"], ["boxes"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16, 8, 8]) for name in ("x", "boxes", "features")
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight("w", 16, 16, 1, 1)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


def test_what_depends_on_a_plugin_cannot_run(tmp_path: Path) -> None:
    model = detector(tmp_path / "m.onnx")
    assert {value.name for value in unrunnable_values(model.to_ir().graph)} == {"decoded", "boxes"}
    assert runnable_outputs(model) == ("features",)
    assert select_calibration_tensors(model, ("all",)).tensors == ("x", "features")


def test_the_inputs_of_a_plugin_are_compared_in_place_of_its_outputs(tmp_path: Path) -> None:
    """Under the same names in float32 and float16, where a cast is between."""
    model = detector(tmp_path / "m.onnx")
    save_model(to_float16(model, {"x": 3.0, "features": 30.0}), tmp_path / "half.onnx")
    outputs = {}
    for name in ("m", "half"):
        with onnx_runner(tmp_path / f"{name}.onnx") as runner:
            outputs[name] = runner.infer({"x": images(2)}, "images")
    assert outputs["m"].keys() == outputs["half"].keys() == {"decoded.input 0", "features"}
    np.testing.assert_array_equal(outputs["m"]["decoded.input 0"], outputs["m"]["features"])
    np.testing.assert_allclose(outputs["half"]["decoded.input 0"], outputs["m"]["features"], rtol=0.01, atol=0.01)


def functional(path: Path, *body: onnx.NodeProto) -> Path:
    """x -> the function `own.Block` -> y"""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    block = helper.make_function("own", "Block", ["a", "w"], ["b"], body, opsets)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16, 8, 8]) for name in ("x", "y")]
    nodes = [helper.make_node("Block", ["x", "w"], ["y"], domain="own")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight("w", 16, 16, 1, 1)])
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[block], ir_version=8), path)
    return path


def test_a_function_of_the_model_is_no_plugin(tmp_path: Path) -> None:
    path = functional(tmp_path / "m.onnx", helper.make_node("Conv", ["a", "w"], ["b"]))
    with onnx_runner(path) as runner:
        y = runner.infer({"x": images(2)}, "images")["y"]
    expected = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": images(2)})[0]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_a_plugin_in_a_function_is_cut(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["a", "w"], ["c"]), helper.make_node("Decode_TRT", ["c"], ["b"], domain="p")]
    path = functional(tmp_path / "m.onnx", *nodes)
    with onnx_runner(path) as runner:
        assert list(runner.infer({"x": images(2)}, "images")) == ["y.input 0"]


def test_a_quantized_function_is_quantized_already(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["s"], value_float=0.1),
        helper.make_node("QuantizeLinear", ["a", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["b"]),
    ]
    with pytest.raises(ModelError, match="already quantized"):
        load_model(functional(tmp_path / "m.onnx", *nodes))
