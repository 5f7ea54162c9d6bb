"""Engines that cannot be built: what the command line says, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.run import refused, trt_ptq
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError


def test_an_engine_that_cannot_be_built_is_named_by_its_model(cnn_path: Path, tmp_path: Path) -> None:
    message = refused("build", cnn_path, "--backend", "rtx", "--out", tmp_path / "e.engine")
    assert message.startswith(f"{cnn_path}: input 'x' has dynamic dimensions")


def test_a_backend_asked_for_by_name_must_be_there(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    message = refused("quantize", cnn_path, "--data", npz_folder, "--out", tmp_path / "out", "--backend", "trt")
    assert 'pip install "trt-ptq[trt1' in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("max_drop", "status"), [("100%", 2), (0, 3)], ids=["passed", "failed"])
def test_a_failing_builder_does_not_hide_the_verdict(
    cnn_path: Path, npz_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_drop: object, status: int
) -> None:
    def refuse(spec: EngineSpec, _backend: str) -> None:
        raise EngineError(f"no kernel for {spec.onnx.name}")

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", refuse)
    options = ("--out", tmp_path / "out", "--method", "minmax", "--no-search", "--technique", "none")
    done = trt_ptq("quantize", cnn_path, "--data", npz_folder, *options, "--max-drop", max_drop)
    assert done.returncode == status
    assert "no kernel for model.int8.onnx" in done.stderr
    assert "verdict" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()
