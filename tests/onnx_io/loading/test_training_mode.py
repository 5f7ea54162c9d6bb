"""A model that was exported in training mode is refused; one that was not, is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import image_input, weight
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import load_model

CONSTANTS = [
    numpy_helper.from_array(np.array(0.1, np.float32), "ratio"),
    numpy_helper.from_array(np.array(True), "on"),
    numpy_helper.from_array(np.array(False), "off"),
    *(weight(name, 16) for name in ("scale", "bias", "mean")),
    numpy_helper.from_array(np.ones(16, np.float32), "variance"),
]
BATCH_NORM = ["x", "scale", "bias", "mean", "variance"]


def saved(path: Path, node: onnx.NodeProto, opset: int = 17, *first: onnx.NodeProto) -> Path:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, 8, 8])
    graph = helper.make_graph([*first, node], "g", [image_input()], [output], CONSTANTS)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def branches() -> dict[str, Any]:
    """An If whose branches drop values."""
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Dropout", ["x", "ratio", "on"], ["z"])], "body", [], [result])
    return {"then_branch": body, "else_branch": body}


@pytest.mark.parametrize(
    ("node", "opset", "named"),
    [
        (helper.make_node("Dropout", ["x", "ratio", "on"], ["y"]), 17, "Dropout 'y'"),
        (helper.make_node("BatchNormalization", BATCH_NORM, ["y", "m", "v"], training_mode=1), 15, "BatchNorm.* 'y'"),
        (helper.make_node("BatchNormalization", BATCH_NORM, ["y", "m", "v", "sm", "sv"]), 11, "BatchNorm.* 'y'"),
        (helper.make_node("If", ["on"], ["y"], **branches()), 17, r"Dropout 'z' and 1 more"),
    ],
    ids=["dropout", "batch norm", "batch norm of opset 11", "body"],
)
def test_training_mode_is_refused(tmp_path: Path, node: onnx.NodeProto, opset: int, named: str) -> None:
    with pytest.raises(ModelError, match=rf"exported in training mode \({named}\).*model\.eval\(\)"):
        load_model(saved(tmp_path / "m.onnx", node, opset))


def test_a_constant_node_requests_training_too(tmp_path: Path) -> None:
    flag = helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True)))
    node = helper.make_node("Dropout", ["x", "ratio", "flag"], ["y"])
    with pytest.raises(ModelError, match="training mode"):
        load_model(saved(tmp_path / "m.onnx", node, 17, flag))


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Dropout", ["x"], ["y"]),
        helper.make_node("Dropout", ["x", "ratio", "off"], ["y"]),
        helper.make_node("BatchNormalization", BATCH_NORM, ["y"]),
    ],
    ids=["dropout", "dropout off", "batch norm"],
)
def test_inference_mode_is_loaded(tmp_path: Path, node: onnx.NodeProto) -> None:
    assert load_model(saved(tmp_path / "m.onnx", node)).outputs == ("y",)
