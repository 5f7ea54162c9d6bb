"""Weight-only nodes (W8A16): INT8 weights, float activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.networks import images, residual_cnn, sequences, transformer_block
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import UsageError
from trt_ptq.lint.linter import lint_model
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.qdq.insert import QdqModel, insert_qdq
from trt_ptq.qdq.node_selection import select_weight_only

NO_RANGES = CalibrationTable({})


@pytest.fixture
def block(tmp_path: Path) -> Model:
    return load_model(transformer_block(tmp_path / "block.onnx"))


def weight_only(model: Model, *patterns: str) -> QdqModel:
    names = select_weight_only(model.to_ir().graph, patterns or ["*"])
    return insert_qdq(model, NO_RANGES, weight_only=names)


@pytest.mark.parametrize("make", [transformer_block, residual_cnn])
def test_only_weights_are_quantized_and_no_range_is_needed(make: object, tmp_path: Path) -> None:
    assert callable(make)
    model = load_model(make(tmp_path / "m.onnx"))
    quantized, path = weight_only(model), tmp_path / "w8a16.onnx"
    quantized.save(path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    op_types = [node.op_type for node in proto.graph.node]
    assert "QuantizeLinear" not in op_types
    assert op_types.count("DequantizeLinear") == quantized.num_weight_only_nodes > 0
    assert quantized.num_int8_nodes == 0


def test_the_outputs_hardly_change(block: Model, tmp_path: Path) -> None:
    path = tmp_path / "w8a16.onnx"
    weight_only(block).save(path)
    feeds = {block.inputs[0].name: sequences(4, 8)}
    exact = ort.InferenceSession(block.path).run(None, feeds)[0]
    actual = ort.InferenceSession(path).run(None, feeds)[0]
    error = np.linalg.norm(actual - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.03


def test_other_nodes_run_in_int8_by_their_ranges(cnn: Model) -> None:
    ranges = CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})
    plan = insert_qdq(cnn, ranges, weight_only=select_weight_only(cnn.to_ir().graph, ["c1"])).plan
    assert {node.output for node in plan.nodes if node.weight_only} == {"c1"}
    assert {node.op_type for node in plan.nodes if node.is_int8} >= {"Conv"}
    assert "x" not in plan.activations


def test_patterns_select_nodes_with_weights_alone(block: Model, cnn: Model) -> None:
    graph = block.to_ir().graph
    assert select_weight_only(graph, ["*"]) == select_weight_only(graph, ["MatMul"])
    with pytest.raises(UsageError, match="`weight_only`: no quantizable node matches 'nothing'"):
        select_weight_only(graph, ["nothing"])
    with pytest.raises(UsageError, match="weight_only: no quantizable node has 'nothing'"):
        insert_qdq(cnn, NO_RANGES, weight_only=["nothing"])


def test_lint_accepts_weight_only(block: Model, tmp_path: Path) -> None:
    path = tmp_path / "w8a16.onnx"
    weight_only(block).save(path)
    assert [finding for finding in lint_model(path, None) if finding.severity == "error"] == []


def test_images_still_pass_through(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "w8a16.onnx"
    weight_only(cnn).save(path)
    assert ort.InferenceSession(path).run(None, {"x": images(2)})[0].shape[0] == 2
