"""Percentile: clips the largest magnitudes, which are rare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import UsageError


@dataclass(frozen=True)
class Percentile:
    """The magnitude that `percentile` % of all values do not exceed, interpolated linearly within its bin.

    If so many values are zero that this magnitude is 0, which would clip all others, the range is the largest
    magnitude.

    Args:
        percentile: Above 0 and up to 100.

    Raises:
        UsageError: It is out of bounds.

    Source: the percentile of |x|, as in Wu et al., "Integer Quantization for Deep Learning Inference: Principles and
    Empirical Evaluation", 2020 (the section on calibration).
    """

    percentile: float = 99.99

    @property
    def name(self) -> str:
        return f"percentile {float(self.percentile)!r}".removesuffix(".0")

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise UsageError(f"`percentile` must be above 0 and up to 100, not {self.percentile}")

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
