"""Percentile: the rarest, largest magnitudes are clipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import UsageError


@dataclass(frozen=True)
class Percentile:
    """The magnitude below which `percentile` % of all values lie, interpolated linearly within its bin.

    Where so many values are zero that this is 0, which would clip all others, the range is the largest magnitude.
    """

    percentile: float = 99.99

    @property
    def name(self) -> str:
        return f"percentile {float(self.percentile)!r}".removesuffix(".0")

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise UsageError(f"a percentile lies above 0 and up to 100, not {self.percentile}")

    def amax(self, tensor: TensorStatistics) -> float:
        counts = tensor.histogram.counts.copy()
        counts[0] -= tensor.zeros
        target = self.percentile / 100 * tensor.count - tensor.zeros
        if self.percentile == 100 or target <= 0:
            return tensor.amax
        cumulative = np.cumsum(counts)
        index = int(np.searchsorted(cumulative, target))
        inside = target - (cumulative[index] - counts[index])
        value = (index + inside / max(counts[index], 1)) * tensor.histogram.bin_width
        return float(min(value, tensor.amax))
