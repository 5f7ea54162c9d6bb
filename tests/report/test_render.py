"""report.html, as a real browser sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.networks import images, residual_cnn
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import StatisticsError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.pipeline import QuantizeResult, quantize
from trt_ptq.report.render import render_html
from trt_ptq.report.schema import Report, load_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    parent = tmp_path_factory.mktemp("rendered")
    folder = parent / "<images> & more"
    folder.mkdir()
    for index in range(10):
        np.savez(folder / f"{index}.npz", x=images(4, seed=index))
    cnn = load_model(residual_cnn(parent / "cnn.onnx"))
    return quantize(cnn, folder, output_dir=parent / "out", config=QuantizeConfig(method="percentile"))


@pytest.fixture(scope="session")
def report(result: QuantizeResult) -> Report:
    return result.report


def test_report_json_reads_back_as_it_was(result: QuantizeResult) -> None:
    assert load_report(result.output_dir / "report.json") == result.report


def test_a_damaged_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(StatisticsError, match=r"report\.json: not a report"):
        load_report(tmp_path / "report.json")


def test_the_page_needs_nothing_from_elsewhere(report: Report) -> None:
    page = render_html(report)
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "{{" not in page


def test_what_users_wrote_is_escaped(report: Report) -> None:
    assert "&lt;images&gt; &amp; more" in render_html(report)


def test_parameters_are_shown_as_options(report: Report) -> None:
    warned = report.model_copy(update={"warnings": ["set `shapes=x=1x1:8x64:8x128`", "lower `max_drop`"]})
    page = render_html(warned)
    assert "<li>set --shape x=1x1:8x64:8x128</li>\n<li>lower --max-drop</li>" in page


def test_the_error_of_scores_is_by_answers_too(report: Report) -> None:
    assert report.loss_title("fidelity of y") == "error of y (SQNR or top-1)"
    assert report.loss_title("accuracy") == "loss of accuracy"
    models = [
        model.model_copy(update={"fidelity": {name: replace(y, top1=None) for name, y in model.fidelity.items()}})
        for model in report.models
    ]
    assert report.model_copy(update={"models": models}).loss_title("fidelity of y") == "error of y"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_shows_verdict_tensors_and_nodes(result: QuantizeResult, tmp_path: Path) -> None:
    report = result.report
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        (result.output_dir / "report.html").as_uri(),
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert f"<b>{report.verdict.headline}</b>" in page
    assert page.count('<svg viewBox="0 0 192') == len(report.tensors) == 3
    assert page.count('<svg class="plot"') == len(METHODS)
    for node in report.nodes:
        assert f"<td>{node.output}</td>" in page
    assert page.count("<table>") == page.count("</table>") >= 4
