"""Two runs on one folder, killed runs, and builders that fail: no result is lost, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from tests.cli.run import ROOT
from tests.networks import images
from tests.pipeline.quantizing import chain_path, quantized
from trt_ptq._internal.locks import try_lock
from trt_ptq.errors import EngineError, OutputError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.report.schema import load_report

_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.pipeline.quantizing import chain_path, quantized
def tune(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
import trt_ptq.pipeline
trt_ptq.pipeline.tune_recipe = tune
quantized(sys.argv[1], Path(sys.argv[2]))
"""


def test_a_second_run_is_refused_while_the_first_lives(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    first = try_lock(tmp_path / "out")
    assert first is not None
    with pytest.raises(OutputError, match="another run"):
        quantized(cnn, tmp_path / "out", method="mse")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    os.close(first)
    assert quantized(cnn, tmp_path / "out", method="mse").report.method == "mse"


def test_a_killed_run_hinders_no_other_and_its_files_are_removed(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, cnn.path, out],
        cwd=ROOT,
        check=False,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert {path.name for path in out.iterdir()} == {"stats.safetensors"}
    assert list(scratch.glob("trt-ptq-*"))
    (out / ".trt-ptq-00ff00ff.tmp").write_bytes(b"half")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    quantized(cnn, out)
    assert not list(scratch.glob("trt-ptq-*"))
    assert not list(out.glob(".*"))


def test_a_float16_model_that_cannot_be_written_leaves_all_else(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(model: ir.Model, path: Path) -> None:
        if path.name == "model.fp16.onnx":
            raise OutputError(f"cannot write {path}: No space left on device")
        save_model(model, path)

    def metric(run: Any) -> dict[str, float]:
        return {"accuracy": float(len(run({"x": images(4)})))}

    monkeypatch.setattr("trt_ptq.pipeline.export_step.save_model", save)
    for evaluate in (None, metric):
        result = quantized(cnn, tmp_path, backend="auto", evaluate=evaluate)
        report = load_report(tmp_path)
        assert report == result.report
        assert report.verdict.passed
        assert [model.precision for model in report.models] == ["fp32", "int8"]
        assert [engine.precision for engine in report.engines] == ["int8"]
        assert sum("model.fp16.onnx: No space left on device" in warning for warning in report.warnings) == 1
        assert result.fp16_model_path is None
        assert result.engine_error is None
        assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("name", ["model.int8.onnx", "model.transformed.onnx"])
def test_a_model_that_cannot_be_written_leaves_the_report_and_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, out = chain_path(tmp_path), tmp_path / "out"

    def save(model: ir.Model, path: Path) -> None:
        if path == out / name:
            raise OutputError(f"cannot write {path}: No space left on device")
        save_model(model, path)

    monkeypatch.setattr("trt_ptq.pipeline.export_step.save_model", save)
    with pytest.raises(OutputError, match=rf"{name}: No space left on device; the report and all other results"):
        quantized(model, out, backend="auto", techniques=("equalization",))
    report = load_report(out)
    assert report.tensors
    assert [model.precision for model in report.models] == ["fp32", "fp16", "int8"]
    assert sum(f"{name}: No space left on device" in warning for warning in report.warnings) == 1
    assert any("engines were not built" in warning for warning in report.warnings)
    expected = {"model.int8.onnx", "model.fp16.onnx", "model.transformed.onnx", "report.html", "calibration.json"}
    assert expected - {path.name for path in out.iterdir()} == {name}


def test_without_room_for_the_int8_model_anywhere_the_run_ends(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(model: ir.Model, path: Path) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("trt_ptq.pipeline.export_step.save_model", save)
    with pytest.raises(OutputError, match=f"^cannot write {tmp_path}/model.int8.onnx: No space left on device$"):
        quantized(cnn, tmp_path)
    assert (tmp_path / "stats.safetensors").is_file()


@pytest.mark.parametrize("error", [EngineError("no kernel"), OutputError("cannot write e: No space left on device")])
def test_an_engine_that_cannot_be_built_or_written_leaves_all_else(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_spec: object, _backend: str) -> None:
        raise error

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", refuse)
    result = quantized(cnn, tmp_path, backend="auto")
    assert result.engine_error is error
    report = load_report(tmp_path)
    assert report.verdict == result.verdict
    assert any(warning.endswith(str(error)) for warning in report.warnings)


def test_a_builder_that_ends_the_run_leaves_a_report_that_says_so(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_spec: object, _backend: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", crash)
    with pytest.raises(KeyboardInterrupt):
        quantized(cnn, tmp_path, backend="auto")
    report = load_report(tmp_path)
    assert any("engines were not built" in warning for warning in report.warnings)
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "model.int8.onnx").is_file()
