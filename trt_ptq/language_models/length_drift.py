"""How the ranges of a language model's tensors change with the length of the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trt_ptq._internal.listing import first_few
from trt_ptq.calibrators.statistics.statistics import Statistics

MOST_SHOWN = 10  # tensors in tables


@dataclass(frozen=True)
class RangeDrift:
    """The range of a tensor by length bucket.

    Attributes:
        tensor: the tensor.
        amax: its range by bucket.
        ratio: how many times the largest is the smallest.
        layers: the nodes that read it in INT8, by their first outputs.
    """

    tensor: str
    amax: dict[str, float]
    ratio: float
    layers: tuple[str, ...] = ()

    @property
    def layers_text(self) -> str:
        """The first of `layers`, and how many more there are, as tables show them."""
        return first_few(self.layers, 1)

    @property
    def amax_texts(self) -> list[str]:
        """The values of `amax`, as tables show them."""
        return [f"{value:.4g}" for value in self.amax.values()]


def range_drift(
    by_length: Mapping[str, Statistics], method: str = "minmax", readers: Mapping[str, tuple[str, ...]] | None = None
) -> list[RangeDrift]:
    """The drift of each tensor that was measured and has a range in every bucket, the largest ratio first.

    Args:
        by_length: statistics of one model by length bucket.
        method: the range method; see `Statistics.table`.
        readers: see `QuantizationPlan.readers`.
    """
    tables = {label: statistics.table(method).amax for label, statistics in by_length.items()}
    measured = [name for statistics in [*by_length.values()][:1] for name in statistics.tensors]
    names = [name for name in measured if all(name in amax for amax in tables.values())]
    drifts = []
    for name in names:
        amax = {label: table[name] for label, table in tables.items()}
        drifts.append(RangeDrift(name, amax, max(amax.values()) / min(amax.values()), (readers or {}).get(name, ())))
    return sorted(drifts, key=lambda drift: -drift.ratio)


def by_rising_length(statistics: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Statistics by length bucket such as "32-63", the shortest first."""
    return dict(sorted(statistics.items(), key=lambda item: int(item[0].partition("-")[0])))
