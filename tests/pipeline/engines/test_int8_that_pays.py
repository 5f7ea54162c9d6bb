"""`quantize` for TensorRT-RTX: which layers run in INT8, whether that pays, and the same model by its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.speed.mixed_network import SHAPE, wide_and_depthwise
from trt_ptq.api.converting import quantize_model
from trt_ptq.api.speed import compare_with_float16
from trt_ptq.config import QuantizeConfig
from trt_ptq.engines.manifest import read_manifest
from trt_ptq.errors import MissingPackageError, UsageError
from trt_ptq.pipeline import QuantizeResult, quantize
from trt_ptq.recipe import load_recipe


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("speed")
    random = np.random.default_rng(0)
    batches = [{"x": random.normal(size=SHAPE).astype(np.float32)} for _ in range(4)]
    config = QuantizeConfig(method="minmax", techniques=(), backend="rtx", require_speedup=100)
    return quantize(wide_and_depthwise(folder / "m.onnx"), batches, output_dir=folder / "out", config=config)


def test_a_depthwise_convolution_stays_in_fp16(result: QuantizeResult) -> None:
    nodes = {node.output: node for node in result.report.nodes}
    assert nodes["c1"].is_int8
    assert (nodes["d2"].is_int8, nodes["d2"].reason) == (False, "faster in FP16, by the plan of the builder")
    assert "layers stay in FP16, where TensorRT-RTX is faster" in result.report.placement


def test_the_verdict_says_whether_int8_pays(result: QuantizeResult) -> None:
    assert result.speed is not None
    assert result.speed.basis == "estimated"
    assert result.speed.speedup > 1
    assert not result.fast_enough
    assert str(result).splitlines()[1].startswith("  speed: INT8 is estimated to run at ")
    assert "required 100 x: FAILED" in result.report.speed_verdict
    assert result.speed.sentence in (result.output_dir / "report.html").read_text(encoding="utf-8")


def test_the_target_is_recorded_and_the_table_leads_to_the_same_model(result: QuantizeResult, tmp_path: Path) -> None:
    out = result.output_dir
    assert load_recipe(out / "recipe.yaml").target == "rtx"
    assert read_manifest(out / "model.int8.engine").target == "rtx"
    quantize_model(out.parent / "m.onnx", out / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == result.model_path.read_bytes()


def test_an_engine_is_compared_with_one_that_is_built_for_that(result: QuantizeResult) -> None:
    out = result.output_dir
    again = compare_with_float16(out.parent / "m.onnx", out / "model.int8.engine")
    assert result.speed is not None
    assert again.int8 == result.speed.int8
    assert again.fp16.bytes_moved is not None
    assert list(out.glob("*fp16.engine")) == [out / "model.fp16.engine"]


@pytest.mark.parametrize(
    "options", [{"require_speedup": 0}, {"require_speedup": 1.1, "backend": "none"}, {"gpu": "x1"}]
)
def test_bad_options_are_named(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"`(require_speedup|gpu)`"):
        QuantizeConfig(**options)  # type: ignore[arg-type]


def test_a_builder_that_cannot_be_loaded_takes_no_result_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise MissingPackageError("tensorrt_rtx cannot be imported")

    monkeypatch.setattr("trt_ptq.pipeline.placement_step.has_tensorrt_rtx", lambda: True)
    monkeypatch.setattr("trt_ptq.pipeline.placement_step.build_engine", missing)
    config = QuantizeConfig(method="minmax", techniques=(), backend="none", target="rtx", search=False)
    batches = [{"x": np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)} for seed in range(4)]
    result = quantize(wide_and_depthwise(tmp_path / "m.onnx"), batches, output_dir=tmp_path / "out", config=config)
    assert "which layers pay in INT8 was not looked for: tensorrt_rtx cannot be imported" in result.warnings


def test_layers_are_not_placed_for_a_gpu_that_the_builder_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trt_ptq.pipeline.placement_step.has_tensorrt_rtx", lambda: True)
    config = QuantizeConfig(method="minmax", techniques=(), backend="none", target="rtx", search=False, gpu="h100")
    batches = [{"x": np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)} for seed in range(4)]
    result = quantize(wide_and_depthwise(tmp_path / "m.onnx"), batches, output_dir=tmp_path / "out", config=config)
    untold = "which layers pay in INT8 was not looked for, as TensorRT-RTX does not run on h100"
    assert untold in result.warnings
