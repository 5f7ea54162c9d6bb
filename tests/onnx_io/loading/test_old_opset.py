"""Models of old opsets compute the same after their conversion, or are refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import images, weight
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.types import Array


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    opset: int,
    constants: Mapping[str, Array] | None = None,
    input_type: int = TensorProto.FLOAT,
) -> Path:
    """A model x [n, 16, 8, 8] -> y."""
    ends = [
        helper.make_tensor_value_info("x", input_type, ["n", 16, 8, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, "h", "w"]),
    ]
    initializers = [weight("w", 16, 16, 1, 1), *(numpy_helper.from_array(v, k) for k, v in (constants or {}).items())]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6), path)
    return path


def run(model: bytes) -> Array:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": images(2)})[0]
    return result


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(
    ("opset", "op_type", "scale"),
    [(10, "Resize", scale) for scale in (2.0, 1.5, 0.5, 0.4)]
    + [(opset, "Upsample", scale) for opset in (9, 7) for scale in (2.0, 1.5)],
)
def test_resizing_keeps_its_rule(tmp_path: Path, opset: int, op_type: str, mode: str, scale: float) -> None:
    scales = np.array([1, 1, scale, scale], np.float32)
    if opset == 7:
        resize, constants = helper.make_node(op_type, ["c"], ["y"], mode=mode, scales=scales.tolist()), {}
    else:
        resize, constants = helper.make_node(op_type, ["c", "scales"], ["y"], mode=mode), {"scales": scales}
    path = saved(tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["c"]), resize], opset, constants)
    raised = load_model(path)
    np.testing.assert_allclose(run(raised.proto.SerializeToString()), run(path.read_bytes()), rtol=1e-5, atol=1e-6)


def test_a_conversion_that_changes_results_is_refused(tmp_path: Path) -> None:
    """Hardmax worked on a matrix before opset 13, which ONNX's converter ignores."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Hardmax", ["c"], ["y"], axis=1)]
    path = saved(tmp_path / "m.onnx", nodes, 11)
    with pytest.raises(ModelError, match=r"conversion to opset 13 changes what Hardmax 'y' computes: export"):
        load_model(path)


def test_random_nodes_are_not_called_changed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("RandomNormalLike", ["c"], ["noise"]),
        helper.make_node("Add", ["c", "noise"], ["y"]),
    ]
    assert load_model(saved(tmp_path / "m.onnx", nodes, 11)).opset == 13


def test_a_model_that_cannot_be_compared_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No string is known that a model would accept."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, 11, input_type=TensorProto.STRING)
    with caplog.at_level(logging.WARNING):
        load_model(path)
    assert "m.onnx was converted to opset 13; whether it still computes the same was not checked" in caplog.text
