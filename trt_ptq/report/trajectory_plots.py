"""Plots of how the ranges settled with the number of samples; see docs/how-many-samples.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trt_ptq.calibration.convergence import MethodTrajectory, Trajectory

_WIDTH, _HEIGHT, _MARGIN = 320, 150, 28
_COLOURS = ("#4b8b00", "#d0342c", "#1f6fd0", "#d99a00", "#8b3fb0")


@dataclass(frozen=True)
class Mark:
    """A label of an axis, at its position in SVG units."""

    at: str
    text: str


@dataclass(frozen=True)
class Curve:
    """The scale of one tensor over the number of samples, as the points of an SVG polyline."""

    tensor: str
    colour: str
    points: str


@dataclass(frozen=True)
class ScalePlot:
    """Scales of the tensors that converged last with one method, each divided by its final value."""

    method: str
    curves: list[Curve]
    x_marks: list[Mark]
    y_marks: list[Mark]
    final_y: str
    width: int = _WIDTH
    height: int = _HEIGHT
    margin: int = _MARGIN


def scale_plots(trajectory: Trajectory) -> list[ScalePlot]:
    """One plot per method, over the number of samples on a logarithmic axis."""
    return [_scale_plot(trajectory.samples, method) for method in trajectory.methods]


def _scale_plot(samples: list[int], method: MethodTrajectory) -> ScalePlot:
    ratios = {
        tensor: [scale / scales[-1] for scale in scales] for tensor, scales in method.slowest.items() if scales[-1] > 0
    }
    low = min([0.9, *(min(curve) for curve in ratios.values())])
    high = max([1.1, *(max(curve) for curve in ratios.values())])
    first, last = math.log2(samples[0]), math.log2(samples[-1])

    def x(count: int) -> str:
        return f"{_MARGIN + (math.log2(count) - first) / ((last - first) or 1) * (_WIDTH - 2 * _MARGIN):.1f}"

    def y(ratio: float) -> float:
        return _HEIGHT - _MARGIN - (ratio - low) / (high - low) * (_HEIGHT - 2 * _MARGIN)

    def points(curve: list[float]) -> str:
        return " ".join(f"{x(count)},{y(ratio):.1f}" for count, ratio in zip(samples, curve, strict=True))

    return ScalePlot(
        method=method.method,
        curves=[
            Curve(tensor, colour, points(curve))
            for colour, (tensor, curve) in zip(_COLOURS, ratios.items(), strict=False)
        ],
        x_marks=[
            Mark(x(count), str(count)) for count in dict.fromkeys((samples[0], samples[len(samples) // 2], samples[-1]))
        ],
        y_marks=[Mark(f"{y(ratio) + 4:.1f}", f"{ratio:.2g}") for ratio in (low, 1.0, high)],
        final_y=f"{y(1):.1f}",
    )
