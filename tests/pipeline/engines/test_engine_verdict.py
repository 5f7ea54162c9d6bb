"""Stand-in: `quantize` where engines run; a stand-in engine is an ONNX file (see standin_engines.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.runners import standin_engines
from tests.networks import images
from tests.pipeline.quantizing import quantized
from trt_ptq.errors import EngineError
from trt_ptq.onnx_io.load import Model
from trt_ptq.report.schema import load_report


@pytest.fixture(autouse=True)
def _standins(monkeypatch: pytest.MonkeyPatch) -> None:
    standin_engines.use_standin_engines(monkeypatch)


@pytest.fixture
def noisy_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 engines whose outputs are half of what their models compute."""
    run = standin_engines.StandinSession.run

    def half(self: Any, feeds: Any) -> Any:
        factor = 0.5 if "int8" in self.path.name else 1.0
        return {name: factor * array for name, array in run(self, feeds).items()}

    monkeypatch.setattr(standin_engines.StandinSession, "run", half)


def size(run: Any) -> dict[str, float]:
    return {"size": float(abs(run({"x": images(4)})["y"]).mean())}


def test_engines_that_compute_the_same_leave_the_verdict_and_say_what_it_is_on(cnn: Model, tmp_path: Path) -> None:
    expected = quantized(cnn, tmp_path / "emulated")
    result = quantized(cnn, tmp_path / "out", backend="auto")
    assert result.verdict.grade == expected.verdict.grade
    assert [engine.file for engine in result.report.evaluated_engines] == ["model.fp16.engine", "model.int8.engine"]
    assert result.engine_metrics["int8"].keys() == result.metrics["int8"].keys()
    assert result.report.verdict_basis == "the INT8 engine, on stand-in (no GPU)"
    assert "emulates" in expected.report.verdict_basis
    assert not any("on the engines" in warning or "emulation" in warning for warning in result.warnings)
    assert "INT8 engine: " in str(result)
    assert result.report.verdict_basis in (tmp_path / "out" / "report.html").read_text()
    assert load_report(tmp_path / "out") == result.report


@pytest.mark.usefixtures("noisy_engine")
@pytest.mark.parametrize("evaluate", [None, size], ids=["fidelity", "metric"])
def test_the_engine_decides_where_it_differs_from_its_emulation(cnn: Model, tmp_path: Path, evaluate: Any) -> None:
    result = quantized(cnn, tmp_path, backend="auto", evaluate=evaluate)
    assert (result.verdict.grade, result.passed) == ("needs work", False)
    [warning] = [warning for warning in result.warnings if "emulation differ" in warning]
    assert "the INT8 model in ONNX Runtime is excellent" in warning
    if evaluate:
        assert result.verdict.loss == pytest.approx(0.5, abs=0.05)


def test_engines_that_fail_leave_the_verdict_on_the_emulation(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EngineError("no kernel image for this device")

    monkeypatch.setattr(standin_engines.StandinSession, "run", fail)
    result = quantized(cnn, tmp_path, backend="auto")
    assert result.passed
    assert result.report.evaluated_engines == []
    assert any("emulation, since the engines could not be evaluated: no kernel" in text for text in result.warnings)
