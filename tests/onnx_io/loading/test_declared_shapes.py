"""Shapes that a model declares and its nodes contradict decide nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import weight
from trt_ptq.onnx_io.load import load_model
from trt_ptq.qdq.plan import plan_quantization

FLATTEN = [helper.make_node("Flatten", ["x"], ["f"])]
RESHAPE = [helper.make_node("Reshape", ["x", "rows"], ["f"])]


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    declared: dict[str, Sequence[int | str]],
    output: Sequence[int | str],
) -> Path:
    """x [n, 16, 2, 2] -> f [n, 64] -> Gemm -> y [n, 32], with the shapes `declared` and that of the `output`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    constants = [weight("w", 64, 32), numpy_helper.from_array(np.array([-1, 64]), "rows")]
    graph = helper.make_graph([*nodes, helper.make_node("Gemm", ["f", "w"], ["y"])], "g", [x], [y], constants)
    graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in declared.items()
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("nodes", [FLATTEN, RESHAPE], ids=["flatten", "reshape"])
@pytest.mark.parametrize(
    ("declared", "output", "named"),
    [
        ({"f": [1, 64]}, [1, 32], "f"),
        ({}, [1, 32], "y"),
        ({"f": [1, 64, 1, 1]}, ["n", 32], "f"),
        ({"f": ["n", 63]}, ["n", 32], "f"),
    ],
    ids=["batch of 1", "output of batch 1", "rank", "size"],
)
def test_a_stale_shape_is_ignored(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    nodes: list[onnx.NodeProto],
    declared: dict[str, Sequence[int | str]],
    output: Sequence[int | str],
    named: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(saved(tmp_path / "m.onnx", nodes, declared, output))
    assert f"the declared shape of '{named}'" in caplog.text
    assert [node.is_int8 for node in plan_quantization(model.to_ir().graph).nodes] == [True]
    shape = model.to_ir().graph.outputs[0].shape
    assert shape is not None
    assert len(shape) == 2
    assert shape[0] != 1
    assert shape[1] == 32


def test_shapes_that_are_right_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(saved(tmp_path / "m.onnx", RESHAPE, {"f": ["batch", 64]}, ["batch", 32]))
    assert not caplog.text
    shape = next(value.shape for node in model.to_ir().graph for value in node.outputs if value.name == "f")
    assert str(shape) == "[batch,64]"
