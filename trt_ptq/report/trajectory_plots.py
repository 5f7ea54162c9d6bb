"""How the ranges settled with the number of samples, as HTML: what to read beside docs/how-many-samples.md."""

from __future__ import annotations

import math
from html import escape

from trt_ptq.calibration.convergence import MethodTrajectory, Trajectory

_WIDTH, _HEIGHT, _MARGIN = 320, 150, 28
_COLOURS = ("#4b8b00", "#d0342c", "#1f6fd0", "#d99a00", "#8b3fb0")


def scale_plots(trajectory: Trajectory) -> str:
    """For each method a plot of the scales that settled last, over the number of samples."""
    return "".join(f"<figure>{_plot(trajectory.samples, one)}{_legend(one)}</figure>" for one in trajectory.methods)


def distance_rows(trajectory: Trajectory) -> list[list[str]]:
    """Rows of cells: a method, then how far its ranges were from the final ones after each number of samples."""
    return [
        [f"{escape(one.method)}: {name}", *(f"{distance:.1%}" for distance in distances)]
        for one in trajectory.methods
        for name, distances in (("90 % of tensors within", one.p90), ("all within", one.worst))
    ]


def _plot(samples: list[int], one: MethodTrajectory) -> str:
    """Scales, each as a share of its final value; the number of samples is on a logarithmic axis."""
    curves = {name: [scale / scales[-1] for scale in scales] for name, scales in one.slowest.items() if scales[-1] > 0}
    low = min([0.9, *(min(curve) for curve in curves.values())])
    high = max([1.1, *(max(curve) for curve in curves.values())])
    first, last = math.log2(samples[0]), math.log2(samples[-1])

    def x(count: int) -> float:
        return _MARGIN + (math.log2(count) - first) / ((last - first) or 1) * (_WIDTH - 2 * _MARGIN)

    def y(share: float) -> float:
        return _HEIGHT - _MARGIN - (share - low) / (high - low) * (_HEIGHT - 2 * _MARGIN)

    lines = "".join(
        f'<polyline stroke="{colour}" points="'
        + " ".join(f"{x(count):.1f},{y(share):.1f}" for count, share in zip(samples, curve, strict=True))
        + f'"><title>{escape(name)}</title></polyline>'
        for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False)
    )
    marks = "".join(
        f'<text x="{x(count):.1f}" y="{_HEIGHT - _MARGIN + 14}" text-anchor="middle">{count}</text>'
        for count in dict.fromkeys((samples[0], samples[len(samples) // 2], samples[-1]))
    )
    marks += "".join(
        f'<text x="{_MARGIN - 4}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.2g}</text>'
        for share in (low, 1.0, high)
    )
    final = f'<path d="M{_MARGIN} {y(1):.1f}H{_WIDTH - _MARGIN}"/>'
    title = f'<text x="{_MARGIN}" y="14">{escape(one.method)}: scale / final scale, by samples</text>'
    label = escape(f"{one.method}: scales by the number of samples", quote=True)
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{title}{final}{marks}{lines}</svg>"
    )


def _legend(one: MethodTrajectory) -> str:
    if not one.slowest:
        return "<figcaption>no range moved after half of the samples</figcaption>"
    named = "<br>".join(
        f'<span style="color:{colour}">&#9644;</span> {escape(name)}'
        for colour, name in zip(_COLOURS, one.slowest, strict=False)
    )
    return f"<figcaption>settled last:<br>{named}</figcaption>"
