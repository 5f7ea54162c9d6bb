"""The verdict, the baselines beside INT8, and the warnings about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from tests.networks import CHANNELS, image_input, images, weight, write
from tests.pipeline.quantizing import quantized
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model, load_model


def test_the_users_metric_decides(cnn: Model, tmp_path: Path) -> None:
    exact = ort.InferenceSession(cnn.path)
    feeds = {"x": images(64, seed=5)}
    labels = exact.run(None, feeds)[0].argmax(1)

    def accuracy(run: Any) -> dict[str, float]:
        return {"accuracy": float((run(feeds)["y"].argmax(1) == labels).mean())}

    result = quantized(cnn, tmp_path, evaluate=accuracy, max_drop="50%")
    assert result.metrics["fp32"] == {"accuracy": 1}
    assert result.verdict.metric == "accuracy"
    assert result.report.comparison_data == "8 held-out samples; metrics by accuracy, on its own data"
    assert result.verdict.loss == pytest.approx(1 - result.metrics["int8"]["accuracy"])


@pytest.mark.parametrize("factor", [1, 255])
def test_a_metric_on_inputs_of_another_range_is_reported_once(cnn: Model, tmp_path: Path, factor: int) -> None:
    def sharpness(run: Any) -> dict[str, float]:
        return {"accuracy": float(np.abs(run({"x": images(8, seed=5) * np.float32(factor)})["y"]).mean())}

    warnings = quantized(cnn, tmp_path, evaluate=sharpness).warnings
    found = [warning for warning in warnings if "preprocess both alike" in warning]
    assert len(found) == (factor != 1)
    assert all(warning.startswith("input 'x': sharpness runs the model on values of ") for warning in found)


def test_a_missed_threshold_is_reported(cnn: Model, tmp_path: Path) -> None:
    result = quantized(cnn, tmp_path, max_drop=0.0)
    assert result.verdict.loss > 0
    assert not result.passed


def test_a_dead_tensor_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"]),
        helper.make_node("Sub", ["c", "c"], ["dead"]),
        helper.make_node("Conv", ["dead", "w2"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    weights = [weight("w1", CHANNELS, CHANNELS, 1, 1), weight("w2", CHANNELS, CHANNELS, 1, 1)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    report = quantized(model, tmp_path / "out").report
    assert any("always zero" in warning and warning.endswith(": dead") for warning in report.warnings)
    assert any("'dead'" in node.reason and not node.is_int8 for node in report.nodes)


def test_external_weights_count_in_the_reported_size(cnn_path: Path, tmp_path: Path) -> None:
    inline = cnn_path.stat().st_size
    onnx.save(onnx.load(cnn_path), cnn_path, save_as_external_data=True, location="w.bin", size_threshold=0)
    report = quantized(load_model(cnn_path), tmp_path / "out").report
    sizes = {model.precision: model.size_bytes for model in report.models}
    assert sizes["fp32"] == pytest.approx(inline, rel=0.05)
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]


def test_a_float16_model_without_a_metric_does_not_undo_the_rest(cnn: Model, tmp_path: Path) -> None:
    calls: list[str] = []

    def accuracy(infer: Any) -> dict[str, float]:
        infer({"x": images(4)})
        calls.append("")
        return {"accuracy": float("nan") if len(calls) == 4 else 1.0}

    report = quantized(cnn, tmp_path, evaluate=accuracy).report
    assert [model.metrics for model in report.models] == [{"accuracy": 1.0}, {}, {"accuracy": 1.0}]
    assert any("the metrics of FP16 were not computed" in warning for warning in report.warnings)


def test_a_float16_model_that_cannot_be_loaded_does_not_undo_the_rest(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "trt_ptq.pipeline.export_step.to_float16", lambda _model, _amax: ir.from_proto(without_kernel())
    )
    result = quantized(cnn, tmp_path)
    assert any(warning.startswith("FP16 was not evaluated") for warning in result.warnings)
    assert result.passed


def test_nodes_that_overflow_float16_are_named_and_stay_accurate(cnn: Model, tmp_path: Path) -> None:
    large = ArraySource("images.npz", {"x": images(40) * 1e5}, 4)
    report = quantized(cnn, tmp_path, large).report
    assert any("nodes stay in FP32" in warning and "Conv 'c1' (" in warning for warning in report.warnings)
    assert all(model.fidelity["y"].cosine > 0.99 for model in report.models if model.fidelity)


def test_a_model_whose_opset_cannot_be_raised_runs_in_fp32_beside_int8(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_model: ir.Model, _opset: int) -> ir.Model:
        raise ModelError("the model cannot be raised from opset 17 to 19 (no adapter)")

    monkeypatch.setattr("trt_ptq.fp16.convert.raise_opset", refuse)
    report = quantized(cnn, tmp_path).report
    assert report.high_precision == "fp32"
    assert "the model cannot be raised from opset 17 to 19" in "".join(report.warnings)
    assert ort.InferenceSession(tmp_path / "model.int8.onnx").run(None, {"x": images(2)})[0].shape == (2, 32)


def without_kernel() -> onnx.ModelProto:
    """A model of an operator that ONNX Runtime does not know."""
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Unheard", ["x"], ["y"], domain="elsewhere")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    return helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), opset_imports=imports)
