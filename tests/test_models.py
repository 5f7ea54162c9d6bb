"""The main job on real trained models (proof: run; INT8 on ONNX Runtime's CPU, engines built and not executed)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import onnx
import onnxruntime as ort
import pytest

from benchmarks.models import detector, magika, minilm, recogniser
from trt_ptq.config import QuantizeConfig
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.pipeline import quantize

SHAPES = {
    "recogniser": ["x=1x3x48x160:8x3x48x320:16x3x48x640"],
    "detector": ["x=1x3x480x480:2x3x480x640:2x3x640x640"],
    "magika": ["bytes=1x2048:8x2048:32x2048"],
    "minilm": ["input_ids=1x16:8x64:8x128", "attention_mask=1x16:8x64:8x128"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "calibration", "test", "int8_nodes", "max_loss"),
    [
        (recogniser, 64, 100, 40, 0.08),
        (detector, 24, 24, 38, 0.05),
        (magika, 256, 400, 3, 0.02),
        (minilm, 64, 200, 36, 0.03),
    ],
    ids=["recogniser", "detector", "magika", "minilm"],
)
def test_a_real_model_keeps_its_metric(
    tmp_path: Path, module: ModuleType, calibration: int, test: int, int8_nodes: int, max_loss: float
) -> None:
    name = module.__name__.rpartition(".")[2]
    result = quantize(
        module.model(),
        partial(module.calibration, samples=calibration),
        evaluate=partial(module.evaluate, samples=test),
        output_dir=tmp_path,
        config=QuantizeConfig(
            method="percentile", shapes=parse_profiles(SHAPES[name]), max_drop=max_loss, target="trt"
        ),
    )
    assert result.engine_error is None
    assert result.report.num_int8_nodes >= int8_nodes
    assert result.report.verdict.passed, result.report.verdict
    assert {engine.precision for engine in result.report.engines} == {"fp16", "int8"}
    onnx.checker.check_model(str(tmp_path / "model.int8.onnx"), full_check=True)
    options = ort.SessionOptions()  # ONNX Runtime's own fusions cannot handle float16 scales
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(tmp_path / "model.int8.onnx", options, providers=["CPUExecutionProvider"])
    assert session.get_outputs()
