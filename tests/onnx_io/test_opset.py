"""Converting the opset of a model in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from tests.networks import image_input, images, residual_cnn, weight, write
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.opset import raise_opset
from trt_ptq.onnx_io.save import save_model


def test_axes_of_a_mean_become_an_input(tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2])
    path, raised = write(tmp_path / "m.onnx", [node], [], [image_input()], ["y"]), tmp_path / "raised.onnx"
    save_model(raise_opset(load_model(path).to_ir(), 19), raised)
    proto = onnx.load(raised)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.opset_import[0].version, proto.ir_version) == (19, 9)
    before, after = (ort.InferenceSession(file).run(None, {"x": images(2)})[0] for file in (path, raised))
    np.testing.assert_array_equal(before, after)


def test_weights_are_not_copied(tmp_path: Path) -> None:
    """In a file beside the model, which the converter does not open."""
    node = helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])
    weights = [weight("w", 8, 4096), weight("b", 4096)]
    path = write(tmp_path / "m.onnx", list(node), weights, [image_input()], ["y"])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    raised = raise_opset(load_model(path).to_ir(), 19)
    assert {name: type(value.const_value).__name__ for name, value in raised.graph.initializers.items()} == {
        "w": "ExternalTensor",
        "b": "TensorProtoTensor",  # small enough to be a shape or axes
    }
    assert [value.name for value in raised.graph.inputs] == ["x"]
    saved = tmp_path / "raised.onnx"
    save_model(raised, saved)
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    for tensor in onnx.load(saved).graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), expected[tensor.name])


def test_a_newer_model_is_unchanged(tmp_path: Path) -> None:
    model = load_model(residual_cnn(tmp_path / "cnn.onnx", opset=21)).to_ir()
    assert raise_opset(model, 19) is model
    assert model.graph.opset_imports[""] == 21
