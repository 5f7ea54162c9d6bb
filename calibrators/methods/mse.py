"""MSE: the range with the least mean squared error of clipping and rounding together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trt_ptq.calibrators.statistics.compiled import compiled
from trt_ptq.calibrators.statistics.tensor import TensorStatistics

if TYPE_CHECKING:
    from trt_ptq.calibrators.batches import Array

LEVELS = 127
_FIRST = 64  # bins: below half a bin a level the histogram says nothing of the rounding error


@dataclass(frozen=True)
class Mse:
    """The range, among the upper edges of the bins, of least squared error.

    Values are taken as evenly spread within their bin; zeros cost nothing. The error of one range is exact under
    that assumption, from the cumulative moments of the histogram.
    """

    name = "mse"

    def amax(self, tensor: TensorStatistics) -> float:
        histogram = tensor.histogram
        counts = histogram.counts.astype(np.float64)
        counts[0] -= tensor.zeros
        if not counts.any():
            return tensor.amax
        best = best_edge(counts, histogram.last_bin)
        return float(min(best * histogram.bin_width, tensor.amax))


@compiled
def squared_error(counts: Array, moments: Array, edge: int) -> float:
    """Sum of squared errors, in bins squared, when [0, edge] is quantized to 127 levels and the rest clipped.

    `moments` [3, n + 1] are the integrals of 1, x, x**2 times the density up to each bin edge.
    """
    step = edge / LEVELS
    error = 0.0
    below0 = below1 = below2 = 0.0
    last = counts.size
    for level in range(LEVELS + 1):
        if level < LEVELS:
            x = (level + 0.5) * step
            i = int(x)
            upto0 = moments[0, i] + counts[i] * (x - i)
            upto1 = moments[1, i] + counts[i] * (x * x - i * i) / 2
            upto2 = moments[2, i] + counts[i] * (x * x * x - float(i) * i * i) / 3
        else:
            upto0, upto1, upto2 = moments[0, last], moments[1, last], moments[2, last]
        value = level * step
        error += (upto2 - below2) - 2 * value * (upto1 - below1) + value * value * (upto0 - below0)
        below0, below1, below2 = upto0, upto1, upto2
    return error


@compiled
def best_edge(counts: Array, last: int) -> int:
    """The bin edge, up to the end of bin `last`, with the least squared error; of equal ones the widest."""
    moments = np.zeros((3, counts.size + 1))
    for i in range(counts.size):
        count = counts[i]
        moments[0, i + 1] = moments[0, i] + count
        moments[1, i + 1] = moments[1, i] + count * (i + 0.5)
        moments[2, i + 1] = moments[2, i] + count * (i * (i + 1) + 1 / 3)
    best, least = last + 1, np.inf
    for edge in range(last + 1, _FIRST - 1, -1):
        error = squared_error(counts, moments, edge)
        if error < least * (1 - 1e-12):
            best, least = edge, error
    return best
