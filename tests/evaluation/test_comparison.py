"""Comparing a model with its reference: fidelity, metrics, verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime.quantization as ort_quantization

from tests.calibration.test_collector import Given
from tests.networks import images, residual_cnn
from trt_ptq.evaluation.comparison import compare_with_reference
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.onnx_io.load import Model

IMAGES = Given([images(4, seed=7), images(3, seed=8)])


def test_without_a_metric_fidelity_decides(cnn: Model, tmp_path: Path) -> None:
    same = compare_with_reference(cnn.path, cnn.path, IMAGES)
    assert (same.passed, same.samples, same.losses) == (True, 7, {"fidelity of y": 0})
    other = compare_with_reference(cnn.path, residual_cnn(tmp_path / "other.onnx", seed=1), IMAGES)
    assert not other.passed
    assert str(other).startswith("other.onnx: needs work (fidelity of y: ")


def test_the_users_metric_decides_where_there_is_one(cnn: Model, tmp_path: Path) -> None:
    def perplexity(run: Any) -> dict[str, float]:
        return {"perplexity": 25.0 if abs(run({"x": images(4)})["y"][0, 0] - expected) < 1e-6 else 190.0}

    expected = 0.0

    def first(run: Any) -> dict[str, float]:
        nonlocal expected
        expected = run({"x": images(4)})["y"][0, 0]
        return {"accuracy": 1.0}

    UserMetric(first).evaluate(cnn.path)
    other = residual_cnn(tmp_path / "other.onnx", seed=1)
    comparison = compare_with_reference(cnn.path, other, IMAGES, UserMetric(perplexity))
    assert (comparison.reference_metrics, comparison.candidate_metrics) == ({"perplexity": 25}, {"perplexity": 190})
    assert (comparison.verdict.grade, comparison.passed) == ("needs work", False)


def test_a_model_that_another_tool_quantized_is_compared(cnn: Model, tmp_path: Path) -> None:
    class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
        batches = iter([{"x": images(4)}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    quantized = tmp_path / "theirs.onnx"
    ort_quantization.quantize_static(
        str(cnn.path), str(quantized), Reader(), quant_format=ort_quantization.QuantFormat.QDQ
    )
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(quantized).graph.node)
    assert compare_with_reference(cnn.path, quantized, IMAGES).outputs["y"].cosine > 0.95
