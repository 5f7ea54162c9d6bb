"""How the report shows engines that were run. The figures are made up: real ones need a GPU (tests/gpu)."""

from __future__ import annotations

from pathlib import Path

from tests.networks import images
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.sources import ArraySource
from trt_ptq.engines.running.benchmark import Benchmark, summarize
from trt_ptq.evaluation.compare_engines import MeasuredEngine
from trt_ptq.evaluation.fidelity import OutputFidelity
from trt_ptq.onnx_io.load import Model
from trt_ptq.pipeline import quantize
from trt_ptq.report.render import render_html
from trt_ptq.report.schema import load_report, write_report

MADE_UP = MeasuredEngine(
    benchmark=Benchmark("m.engine", "int8", "<GPU>", {"x": (8, 16, 8, 8)}, 1, 2_000_000, summarize([0.5, 0.5], 8)),
    layers={"int8": 3, "fp16": 1},
    reformats=2,
    fidelity={"y": OutputFidelity(34.5, 0.999, None, 0.1, 0.01, compared=10)},
)


def test_what_was_measured_is_written_read_and_shown(cnn: Model, tmp_path: Path) -> None:
    source = ArraySource("images.npz", {"x": images(40)}, batch_size=4)
    config = QuantizeConfig(method="minmax", backend="none")
    report = quantize(cnn, source, output_dir=tmp_path / "out", config=config).report
    measured = report.model_copy(update={"engine_measurements": [MADE_UP]})
    write_report(measured, tmp_path / "report.json")
    assert load_report(tmp_path / "report.json") == measured
    page = render_html(measured)
    for shown in ("0.500 ms", "16000 / s at batch 8", "2.00 MB", "3 int8, 1 fp16", "34.5 dB", "&lt;GPU&gt;"):
        assert shown in page
    assert "median latency" not in render_html(report.model_copy(update={"engine_measurements": []}))
