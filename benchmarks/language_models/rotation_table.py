"""The table of rotations in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.results_file import FAILED, Figures

ROTATED_FRACTIONS = (80, 100)  # percent of the MACs of linear layers in INT8


@dataclass(frozen=True)
class Variant:
    """A way to prepare a model for W8A8; `online` also rotates the inputs of `down_proj`, at run time."""

    title: str
    rotated: bool = False
    values: bool = False
    online: bool = False
    smooth: bool = False


VARIANTS = {
    "rotation-none": Variant("neither"),
    "rotation-smooth": Variant("SmoothQuant", smooth=True),
    "rotation-stream": Variant("rotation of the stream", rotated=True),
    "rotation-stream-then-smooth": Variant("rotation of the stream, then SmoothQuant", rotated=True, smooth=True),
    "rotation": Variant("rotation of stream and values", rotated=True, values=True),
    "rotation-online": Variant("the same, and of the inputs of `down_proj`", rotated=True, values=True, online=True),
}
INTRODUCTION = """\
Hadamard rotations (QuaRot, SpinQuant) against SmoothQuant: perplexity of W8A8 against FP32, with weights rounded to
nearest and the same layers excluded in each row. The residual stream and the values of each head are rotated by their
weights. The inputs of `down_proj` are rotated at run time, by two MatMuls before each, 4.8 % of the MACs of linear
layers in FP32. `--technique rotation` has another Hadamard matrix. A cell that is missing was not measured.
"""


def rotation_lines(figures: Mapping[str, Figures]) -> Iterator[str]:
    """The table, by percentage of the MACs of linear layers in INT8."""
    yield "| prepared by | " + " | ".join(f"{percent} % of the MACs" for percent in ROTATED_FRACTIONS) + " |"
    yield "|---|" + "---|" * len(ROTATED_FRACTIONS)
    baseline = figures.get("fp32", {}).get("perplexity")
    for name, variant in VARIANTS.items():
        row = figures.get(name, {FAILED: ""})
        if FAILED in row or baseline is None:
            continue
        losses = [row["by_percent"].get(str(percent)) for percent in ROTATED_FRACTIONS]
        cells = ["" if loss is None else f"{loss['perplexity'] / baseline - 1:+.2%}" for loss in losses]
        yield f"| {variant.title} | " + " | ".join(cells) + " |"
