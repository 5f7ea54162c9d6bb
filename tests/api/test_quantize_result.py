"""What `quantize` returns prints short, shows as HTML, and has what one looks for."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import trt_ptq
from tests.networks import images
from tests.pipeline.quantizing import quantized
from trt_ptq.onnx_io.load import Model

FEEDS = {"x": images(8)}


def metric(run: Any) -> dict[str, float]:
    return {"accuracy <b>": 1.0 if run(FEEDS) else 0.0}


@pytest.fixture
def result(cnn: Model, tmp_path: Path) -> trt_ptq.QuantizeResult:
    return quantized(cnn, tmp_path / "out & more", evaluate=metric)


def test_it_has_what_one_looks_for(result: trt_ptq.QuantizeResult, tmp_path: Path) -> None:
    out = tmp_path / "out & more"
    assert result.passed
    assert result.verdict.grade == "excellent"
    assert result.model_path == out / "model.int8.onnx"
    assert result.fp16_model_path == out / "model.fp16.onnx"
    assert result.model_path.is_file() and (out / "model.fp16.onnx").is_file()
    assert result.engine_path is None
    assert result.output_dir == out
    assert {precision: values["accuracy <b>"] for precision, values in result.metrics.items()} == {
        "fp32": 1,
        "fp16": 1,
        "int8": 1,
    }
    assert result.report == trt_ptq.load_report(out) == trt_ptq.load_report(out / "report.json")
    assert result.warnings == tuple(result.report.warnings)


def test_it_prints_a_few_short_lines_with_the_verdict_first(result: trt_ptq.QuantizeResult) -> None:
    lines = str(result).splitlines()
    assert repr(result) == str(result)
    assert lines[0].startswith("excellent (accuracy <b>: 0.00% loss against FP32; ")
    assert len(lines) <= 10
    assert any("model.int8.onnx" in line for line in lines)


def test_warnings_are_counted_in_plain_words(result: trt_ptq.QuantizeResult) -> None:
    for warnings, text in ((["a"], "  1 warning: see"), (["a", "b"], "  2 warnings: see")):
        report = result.report.model_copy(update={"warnings": warnings})
        assert text in str(replace(result, report=report))


def test_without_a_metric_the_fidelity_to_fp32_is_shown(cnn: Model, tmp_path: Path) -> None:
    result = quantized(cnn, tmp_path, max_drop=0.0)
    assert "FAILED" in str(result).splitlines()[0]
    assert 20 < result.metrics["int8"]["SQNR of y in dB"] < 60
    assert 0.5 < result.metrics["int8"]["top-1 agreement of y"] <= 1
    assert "loss" not in str(result)


def test_in_a_notebook_it_is_html_with_everything_escaped(result: trt_ptq.QuantizeResult) -> None:
    page = result._repr_html_()
    assert "accuracy &lt;b&gt;" in page
    assert "out &amp; more" in page
    assert "<b>" not in page.replace("<b>excellent", "")
    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Parser().feed(page)
    assert opened == []
    assert not re.search(r"https?://|<script", page)


def test_why_there_is_no_engine_is_shown(cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise trt_ptq.EngineError("no <kernel>")

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", refuse)
    result = quantized(cnn, tmp_path, backend="auto")
    assert "engine: none (no <kernel>)" in str(result)
    assert "no &lt;kernel&gt;" in result._repr_html_()
