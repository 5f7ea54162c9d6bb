"""report.html, as a real browser sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.networks import images
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import StatisticsError
from trt_ptq.onnx_io.load import Model
from trt_ptq.pipeline import quantize
from trt_ptq.report.render import render_html
from trt_ptq.report.schema import Report, load_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def report(cnn: Model, tmp_path: Path) -> Report:
    folder = tmp_path / "<images> & more"
    folder.mkdir()
    for index in range(10):
        np.savez(folder / f"{index}.npz", x=images(4, seed=index))
    return quantize(cnn, folder, output_dir=tmp_path / "out", config=QuantizeConfig(method="percentile")).report


def test_report_json_reads_back_as_it_was(report: Report, tmp_path: Path) -> None:
    assert load_report(tmp_path / "out" / "report.json") == report


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


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_shows_verdict_tensors_and_nodes(report: Report, tmp_path: Path) -> None:
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        (tmp_path / "out" / "report.html").as_uri(),
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert f"<b>{report.verdict.headline}</b>" in page
    assert page.count('<svg viewBox="0 0 192') == len(report.tensors) == 3
    assert page.count('<svg class="plot"') == len(METHODS)
    for node in report.nodes:
        assert f"<td>{node.output}</td>" in page
    assert page.count("<table>") == page.count("</table>") >= 4
