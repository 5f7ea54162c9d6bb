"""What INT8 costs layer by layer, as a page with a plot, and as cells of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from trt_ptq.evaluation.error_energy import cost
from trt_ptq.report.render import fill_page, html_table
from trt_ptq.sensitivity.measure import LayerSensitivity

_WIDTH, _HEIGHT, _MARGIN = 900, 220, 60
_FLOOR = 1e-12  # noise over signal; what is less costs nothing


def by_cost(layers: Sequence[LayerSensitivity]) -> list[LayerSensitivity]:
    """The layer first that costs most alone, NaN before all."""
    return sorted(layers, key=lambda one: cost(one.alone), reverse=True)


def sensitivity_cells(layers: Sequence[LayerSensitivity]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of `layers`, in their order; what was not measured is no column, or an empty cell."""
    metrics = sorted({name for one in layers for name in one.metrics})
    with_rest = any(one.all_but is not None for one in layers)
    head = ["layer", "op", "alone", *(["all but it"] * with_rest), "weights", "activations", "both", "clipped"]
    rows = [
        [
            one.node,
            one.op_type,
            _percent(one.alone),
            *([_percent(one.all_but)] * with_rest),
            _decibels(one.weights_db),
            _decibels(one.activations_db),
            _decibels(one.both_db),
            "" if one.clipping_share is None else f"{one.clipping_share:.0%}",
            *(f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in metrics),
        ]
        for one in layers
    ]
    return [*head, *metrics], rows


def render_sensitivity(layers: Sequence[LayerSensitivity], model: str, made_from: str) -> str:
    """The whole page; `layers` are in graph order, and `made_from` tells data and ranges."""
    head, rows = sensitivity_cells(by_cost(layers))
    sections = [
        f"<p>{escape(made_from)}</p>",
        "<h2>Error of the outputs with only that layer in INT8, from input to output</h2>",
        _plot(layers),
        f"<h2>{len(layers)} layers, the one that costs most first</h2>",
        html_table([escape(name) for name in head], ([escape(cell) for cell in row] for row in rows)),
        "<dl><dt>alone</dt><dd>energy of the error over that of the signal at the worst output of the model, only that "
        "layer in INT8</dd><dt>all but it</dt><dd>the same with everything in INT8 but that layer</dd>"
        "<dt>weights, activations, both</dt><dd>SQNR in dB of the layer's own output with those in INT8</dd>"
        "<dt>clipped</dt><dd>share of the error in its activations that comes from clipping; the rest is rounding</dd>"
        "</dl>",
    ]
    return fill_page("INT8 sensitivity", model, sections)


def _plot(layers: Sequence[LayerSensitivity]) -> str:
    """A bar a layer, on a logarithmic axis; one that is NaN or infinite reaches the top, in red."""
    finite = [one.alone for one in layers if math.isfinite(one.alone) and one.alone > _FLOOR]
    low = math.floor(math.log10(min(finite, default=_FLOOR)))
    high = max(math.ceil(math.log10(max(finite, default=1))), low + 1)
    step = (_WIDTH - _MARGIN) / max(len(layers), 1)
    bottom = _HEIGHT - 20

    def y(ratio: float) -> float:
        if not math.isfinite(ratio):
            return 10.0
        share = (math.log10(max(ratio, _FLOOR)) - low) / (high - low)
        return bottom - max(share, 0) * (bottom - 10)

    bars = "".join(
        f'<rect x="{_MARGIN + index * step:.1f}" y="{y(one.alone):.1f}" width="{step * 0.8:.1f}" '
        f'height="{bottom - y(one.alone):.1f}"{"" if math.isfinite(one.alone) else _RED}>'
        f"<title>{escape(one.node)} ({escape(one.op_type)}): {_percent(one.alone)}</title></rect>"
        for index, one in enumerate(layers)
    )
    marks = "".join(
        f'<path d="M{_MARGIN} {y(10.0**power):.1f}H{_WIDTH}"/>'
        f'<text x="{_MARGIN - 4}" y="{y(10.0**power) + 4:.1f}" text-anchor="end">{_percent(10.0**power)}</text>'
        for power in range(low, high + 1)
    )
    label = "error of the outputs by layer, in graph order"
    return f'<svg class="wide" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{marks}{bars}</svg>'


_RED = ' style="fill:#d0342c"'


def _percent(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.0%}" if ratio >= 1 else f"{100 * ratio:.2g}%"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{round(value, 1) + 0.0:.1f}"  # no -0.0
