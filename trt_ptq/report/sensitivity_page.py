"""The sensitivity of each layer to INT8: cells of a table, and an HTML page with a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trt_ptq.evaluation.error_energy import sort_key
from trt_ptq.report.render import Bar, render_page
from trt_ptq.sensitivity.measure import LayerSensitivity

_WIDTH, _HEIGHT, _MARGIN = 900, 220, 60
_FLOOR = 1e-12  # error energy / signal energy; below this a layer has no visible effect


@dataclass(frozen=True)
class _Mark:
    y: str
    text_y: str
    text: str


@dataclass(frozen=True)
class _LayerPlot:
    """One bar per layer, in graph order, on a logarithmic axis; NaN and infinity reach the top, in red."""

    bars: list[Bar]
    marks: list[_Mark]
    width: int = _WIDTH
    height: int = _HEIGHT
    margin: int = _MARGIN


def most_sensitive_first(layers: Sequence[LayerSensitivity]) -> list[LayerSensitivity]:
    """Sort layers by the error that each causes alone, largest first, NaN before all."""
    return sorted(layers, key=lambda layer: sort_key(layer.alone), reverse=True)


def sensitivity_cells(layers: Sequence[LayerSensitivity]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of `layers`, in their order.

    A quantity that was measured for no layer has no column; one that was not measured for a layer has an empty cell.
    """
    metrics = sorted({name for layer in layers for name in layer.metrics})
    with_rest = any(layer.all_but is not None for layer in layers)
    rest = ["all but it %"] * with_rest
    head = ["layer", "op", "alone %", *rest, "weights dB", "activations dB", "both dB", "clipping error %"]
    rows = [
        [
            layer.node,
            layer.op_type,
            _percent(layer.alone).rstrip("%"),
            *([_percent(layer.all_but).rstrip("%")] * with_rest),
            _decibels(layer.weights_db),
            _decibels(layer.activations_db),
            _decibels(layer.both_db),
            "" if layer.clipping_fraction is None else f"{100 * layer.clipping_fraction:.0f}",
            *(f"{layer.metrics[name]:.4f}" if name in layer.metrics else "" for name in metrics),
        ]
        for layer in layers
    ]
    return [*head, *metrics], rows


def render_sensitivity(layers: Sequence[LayerSensitivity], model: str, source: str) -> str:
    """Render the page.

    Args:
        layers: in graph order.
        model: name of the model, for the title.
        source: which data and ranges were used.
    """
    head, rows = sensitivity_cells(most_sensitive_first(layers))
    return render_page("sensitivity.html.jinja", model=model, source=source, head=head, rows=rows, plot=_plot(layers))


def _plot(layers: Sequence[LayerSensitivity]) -> _LayerPlot:
    finite = [layer.alone for layer in layers if math.isfinite(layer.alone) and layer.alone > _FLOOR]
    low = math.floor(math.log10(min(finite, default=_FLOOR)))
    high = max(math.ceil(math.log10(max(finite, default=1))), low + 1)
    step = (_WIDTH - _MARGIN) / max(len(layers), 1)
    bottom = _HEIGHT - 20

    def y(ratio: float) -> float:
        if not math.isfinite(ratio):
            return 10.0
        fraction = (math.log10(max(ratio, _FLOOR)) - low) / (high - low)
        return bottom - max(fraction, 0) * (bottom - 10)

    bars = [
        Bar(
            x=f"{_MARGIN + index * step:.1f}",
            y=f"{y(layer.alone):.1f}",
            width=f"{step * 0.8:.1f}",
            height=f"{bottom - y(layer.alone):.1f}",
            title=f"{layer.node} ({layer.op_type}): {_percent(layer.alone)}",
            alert=not math.isfinite(layer.alone),
        )
        for index, layer in enumerate(layers)
    ]
    heights = {10.0**power: y(10.0**power) for power in range(low, high + 1)}
    marks = [_Mark(f"{at:.1f}", f"{at + 4:.1f}", _percent(ratio)) for ratio, at in heights.items()]
    return _LayerPlot(bars, marks)


def _percent(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.0%}" if ratio >= 1 else f"{100 * ratio:.2g}%"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{round(value, 1) + 0.0:.1f}"  # no -0.0
