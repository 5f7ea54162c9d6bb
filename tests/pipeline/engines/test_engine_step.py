"""Engines as the last step: what they are built for, and what is left where none can be built."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests.networks import CHANNELS, weight, write
from tests.pipeline.quantizing import quantized, source
from trt_ptq.engines.manifest import EngineManifest, read_manifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError, ModelError
from trt_ptq.evaluation.runners.runner import Runner, open_runner
from trt_ptq.onnx_io.load import Model


def manifest(spec: EngineSpec, size_bytes: int = 1) -> EngineManifest:
    return EngineManifest.model_construct(
        backend="tensorrt_rtx",
        backend_version="1",
        precision=spec.precision,
        size_bytes=size_bytes,
        build_seconds=1.0,
        gpu=None,
        profiles={},
    )


def builder(**sizes: int) -> Callable[[EngineSpec, str], EngineManifest]:
    """Pretends to build engines of so many bytes by precision."""

    def build(spec: EngineSpec, _backend: str) -> EngineManifest:
        return manifest(spec, sizes[spec.precision])

    return build


def test_shapes_come_from_the_data(cnn: Model, tmp_path: Path) -> None:
    result = quantized(cnn, tmp_path, source(41), backend="auto")
    assert result.engine_path == tmp_path / "model.int8.engine"
    assert read_manifest(tmp_path / "model.int8.engine").profiles == {"x": "1x16x8x8:4x16x8x8:4x16x8x8"}


@pytest.mark.parametrize(("int8_bytes", "warned"), [(3_000_000, True), (2_000_000, False)])
def test_an_int8_engine_larger_than_fp16_is_warned_of(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_bytes: int, warned: bool
) -> None:
    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", builder(fp16=2_000_000, int8=int8_bytes))
    warnings = quantized(cnn, tmp_path, backend="auto").warnings
    text = "the INT8 engine (3.00 MB) is larger than the FP16 engine (2.00 MB)"
    assert any(text in warning for warning in warnings) == warned


def test_axes_that_accept_only_what_the_data_held_are_named_with_a_wider_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", builder(fp16=2, int8=1))
    dynamic = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, 8, "width"])
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = write(tmp_path / "m.onnx", [node], [weight("w", CHANNELS, CHANNELS, 1, 1)], [dynamic], ["y"])
    warnings = quantized(path, tmp_path / "a", backend="auto").warnings
    limited = [warning for warning in warnings if "only the sizes that the calibration data held" in warning]
    assert "8 on axis 3 ('width') of 'x'" in limited[0]
    assert "`shapes=x=1x16x8x4:4x16x8x8:4x16x8x16`" in limited[0]
    given = quantized(path, tmp_path / "b", backend="auto", shapes={"x": "1x16x8x4:4x16x8x8:4x16x8x16"})
    assert not any("calibration data held" in warning for warning in given.warnings)


def test_a_batch_of_varying_size_is_no_limit_to_warn_of(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", builder(fp16=2, int8=1))
    warnings = quantized(cnn, tmp_path, backend="auto").warnings
    assert not any("calibration data held" in warning for warning in warnings)


def test_without_a_builder_all_else_is_done_and_the_remedy_named(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    result = quantized(cnn, tmp_path, backend="auto")
    assert any('pip install "trt-ptq[rtx]"' in warning for warning in result.warnings)
    assert (tmp_path / "report.html").is_file()
    assert (result.engine_path, result.engine_error) == (None, None)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The precisions that the builder refuses; it builds others."""
    precisions: set[str] = set()

    def build(spec: EngineSpec, _backend: str) -> EngineManifest:
        if spec.precision in precisions:
            raise EngineError(f"no kernel for {spec.onnx.name}")
        return manifest(spec)

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", build)
    return precisions


@pytest.mark.parametrize("precisions", [{"fp16"}, {"int8"}, {"fp16", "int8"}], ids=sorted)
def test_a_builder_failure_is_named_and_the_other_engine_built(
    cnn: Model, tmp_path: Path, refused: set[str], precisions: set[str]
) -> None:
    refused |= precisions
    result = quantized(cnn, tmp_path, backend="auto")
    assert {engine.precision for engine in result.report.engines} == {"fp16", "int8"} - precisions
    assert str(result.engine_error) == ("no kernel for model.int8.onnx" if "int8" in precisions else "None")
    for precision in ("fp16", "int8"):
        named = f"no {precision} engine was built: no kernel for model.{precision}.onnx" in result.warnings
        assert named == (precision in precisions)


@pytest.mark.usefixtures("refused")
def test_an_fp16_model_that_onnx_runtime_cannot_load_is_built(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path) -> AbstractContextManager[Runner]:
        if path.name == "model.fp16.onnx":
            raise ModelError(f"{path}: no such operator")
        return open_runner(path)

    monkeypatch.setattr("trt_ptq.evaluation.precisions.open_runner", opened)
    result = quantized(cnn, tmp_path, backend="auto")
    assert any("FP16 was not evaluated" in warning for warning in result.warnings)
    assert [engine.precision for engine in result.report.engines] == ["fp16", "int8"]


def test_backend_none_builds_nothing_and_does_not_warn(cnn: Model, tmp_path: Path) -> None:
    result = quantized(cnn, tmp_path, backend="none")
    assert not list(tmp_path.glob("*.engine*"))
    assert result.engine_error is None
    assert not any("engine" in warning for warning in result.warnings)
