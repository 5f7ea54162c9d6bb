"""Engines as the last step: what they are built for, and what is left where none can be built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.pipeline.quantizing import quantized, source
from trt_ptq.engines.manifest import EngineManifest, read_manifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError, MissingPackageError
from trt_ptq.onnx_io.load import Model


def test_shapes_come_from_the_data(cnn: Model, tmp_path: Path) -> None:
    result = quantized(cnn, tmp_path, source(41), backend="auto")
    assert result.engine_path == tmp_path / "model.int8.engine"
    assert read_manifest(tmp_path / "model.int8.engine").profiles == {"x": "1x16x8x8:4x16x8x8:4x16x8x8"}


@pytest.mark.parametrize(("int8_bytes", "warned"), [(3_000_000, True), (2_000_000, False)])
def test_an_int8_engine_larger_than_fp16_is_warned_of(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_bytes: int, warned: bool
) -> None:
    sizes = {"fp16": 2_000_000, "int8": int8_bytes}

    def build(spec: EngineSpec, _backend: str) -> EngineManifest:
        return EngineManifest.model_construct(
            backend="tensorrt_rtx",
            backend_version="1",
            precision=spec.precision,
            size_bytes=sizes[spec.precision],
            build_seconds=1.0,
            gpu=None,
            profiles={},
        )

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", build)
    warnings = quantized(cnn, tmp_path, backend="auto").warnings
    text = "the INT8 engine (3.00 MB) is larger than the FP16 engine (2.00 MB)"
    assert any(text in warning for warning in warnings) == warned


def test_without_a_builder_all_else_is_done_and_the_remedy_named(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    result = quantized(cnn, tmp_path, backend="auto")
    assert any('pip install "trt-ptq[rtx]"' in warning for warning in result.warnings)
    assert (tmp_path / "report.html").is_file()
    assert (result.engine_path, result.engine_error) == (None, None)


def test_a_builder_that_was_named_and_is_missing_is_an_error(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    result = quantized(cnn, tmp_path, backend="rtx")
    assert isinstance(result.engine_error, MissingPackageError)
    assert (tmp_path / "report.html").is_file()


def test_a_builder_failure_ends_the_builds_and_nothing_else(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(spec: object, _backend: str) -> None:
        asked.append(str(spec))
        raise EngineError("no kernel")

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", refuse)
    result = quantized(cnn, tmp_path, backend="auto")
    assert len(asked) == 1
    assert str(result.engine_error) == "no kernel"
    assert any("no fp16 engine was built: no kernel" in warning for warning in result.warnings)


def test_backend_none_builds_nothing_and_does_not_warn(cnn: Model, tmp_path: Path) -> None:
    result = quantized(cnn, tmp_path, backend="none")
    assert not list(tmp_path.glob("*.engine*"))
    assert result.engine_error is None
    assert not any("engine" in warning for warning in result.warnings)
