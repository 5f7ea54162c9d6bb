"""HTML pages from Jinja templates: each page is one file that needs no scripts and no network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from trt_ptq.evaluation.fidelity import worst_output
from trt_ptq.evaluation.verdict import format_loss
from trt_ptq.report.option_names import with_options
from trt_ptq.report.schema import Report, TensorRow
from trt_ptq.report.trajectory_plots import scale_plots

_HISTOGRAM_SIZE = (192, 32)  # width and height, in SVG units


@dataclass(frozen=True)
class Bar:
    """A rectangle of a plot, in SVG units."""

    x: str
    y: str
    width: str
    height: str
    title: str = ""
    alert: bool = False


@dataclass(frozen=True)
class HistogramPlot:
    """Magnitudes of a tensor on a logarithmic count axis, and where its range ends."""

    width: int
    height: int
    bars: list[Bar]
    range_x: str


def render_html(report: Report) -> str:
    """Render report.html."""
    losses = sorted({name for trial in report.trials for name in trial.losses})
    has_errors = any(trial.output_error is not None for trial in report.trials)
    return render_page(
        "report.html.jinja",
        report=report,
        metrics=sorted({name for result in report.models for name in result.metrics}),
        losses=losses,
        loss_heads=[report.loss_title(name) for name in losses],
        error_heads=["output error (calibration)"] if has_errors else [],
        histogram_plot=_histogram_plot,
        scale_plots=scale_plots,
    )


def render_page(template: str, **context: object) -> str:
    """Render a template of this package; every value is escaped."""
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trt_ptq.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        loss=format_loss, megabytes=_megabytes, worst_output=worst_output, layer_counts=_layer_counts
    )
    environment.filters["with_options"] = with_options
    return environment


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"


def _layer_counts(layers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {precision}" for precision, count in layers.items())


def _histogram_plot(row: TensorRow) -> HistogramPlot:
    width, height = _HISTOGRAM_SIZE
    top = math.log1p(max(row.bars)) or 1
    step = width / len(row.bars)
    heights = [math.log1p(count) / top * height for count in row.bars]
    bars = [
        Bar(f"{index * step:.1f}", f"{height - bar:.1f}", f"{step:.1f}", f"{bar:.1f}")
        for index, bar in enumerate(heights)
        if bar
    ]
    return HistogramPlot(width, height, bars, f"{min(row.amax / row.bars_end, 1) * width:.1f}")
