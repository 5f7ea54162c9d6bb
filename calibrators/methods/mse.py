"""MSE: the range with the smallest mean squared error of clipping and rounding together.

Source: minimization of E[(x - Q(x))**2] over the clipping threshold, as in Banner et al., "Post training 4-bit
quantization of convolutional networks for rapid-deployment", NeurIPS 2019 (ACIQ), here by a search over the histogram
instead of a fitted distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trt_ptq.calibrators.statistics.compiled import compiled
from trt_ptq.calibrators.statistics.tensor import TensorStatistics

if TYPE_CHECKING:
    from trt_ptq.types import Array

LEVELS = 127
_TIE = 1e-12  # relative: errors that differ by less are equal up to rounding
_ROUNDING = 4e-12  # relative to counts * bins**2: bounds the rounding error of the moments (4096 float64 additions)
_STRIDE = 64  # bins between the edges that give an upper bound of the smallest error
_FIRST = 64  # bins: below half a bin per level, the histogram does not resolve the rounding error


@dataclass(frozen=True)
class Mse:
    """The range with the smallest squared error among the upper edges of the bins.

    Values are assumed to be spread evenly within their bin; zeros have no error. Under this assumption, the error of a
    range follows exactly from the cumulative moments of the histogram.
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
def squared_error(counts: Array, moments: Array, edge: int, ceiling: float) -> float:
    """Return the sum of squared errors, in bins squared, if [0, edge] is quantized to 127 levels and the rest clipped.

    `moments` [3, n + 1] are the integrals of 1, x and x**2 times the density up to each bin edge. Each level adds at
    least 0, so the sum stops once it exceeds `ceiling`, and the result is infinity. The last level, which has the
    clipped values, is added first.
    """
    step = edge / LEVELS
    last = counts.size
    border = _moments_below(counts, moments, (LEVELS - 0.5) * step)
    clipped = _level_error(LEVELS * step, border, (moments[0, last], moments[1, last], moments[2, last]))
    bound = ceiling + _ROUNDING * moments[0, last] * float(last) ** 2 - clipped
    error = 0.0
    below = (0.0, 0.0, 0.0)
    for level in range(LEVELS):
        if error > bound:
            return np.inf
        upto = _moments_below(counts, moments, (level + 0.5) * step)
        error += _level_error(level * step, below, upto)
        below = upto
    return error + clipped


@compiled
def _moments_below(counts: Array, moments: Array, x: float) -> tuple[float, float, float]:
    """Return the integrals of 1, x and x**2 times the density up to `x`."""
    i = int(x)
    return (
        moments[0, i] + counts[i] * (x - i),
        moments[1, i] + counts[i] * (x * x - i * i) / 2,
        moments[2, i] + counts[i] * (x * x * x - float(i) * i * i) / 3,
    )


@compiled
def _level_error(value: float, below: tuple[float, float, float], upto: tuple[float, float, float]) -> float:
    """Return the squared error of representing all values between two borders as `value`."""
    return (upto[2] - below[2]) - 2 * value * (upto[1] - below[1]) + value * value * (upto[0] - below[0])


@compiled
def best_edge(counts: Array, last: int) -> int:
    """Return the bin edge up to the end of bin `last` with the smallest squared error; the widest in case of a tie."""
    if last + 1 < _FIRST:
        return last + 1
    moments = np.zeros((3, counts.size + 1))
    for i in range(counts.size):
        count = counts[i]
        moments[0, i + 1] = moments[0, i] + count
        moments[1, i + 1] = moments[1, i] + count * (i + 0.5)
        moments[2, i + 1] = moments[2, i] + count * (i * (i + 1) + 1 / 3)
    ceiling = np.inf
    for edge in range(last + 1, _FIRST - 1, -_STRIDE):
        ceiling = min(ceiling, squared_error(counts, moments, edge, ceiling))
    best = widest_best(counts, moments, last, ceiling * (1 + 4 * _TIE))
    return best if best >= 0 else widest_best(counts, moments, last, np.inf)


@compiled
def widest_best(counts: Array, moments: Array, last: int, ceiling: float) -> int:
    """Return the last edge, from wide to narrow, that improves on those before it by more than a tie.

    Edges above `ceiling` cannot be the best, and are skipped. But a skipped edge within a tie above the first edge
    below `ceiling` might have prevented that from counting as an improvement; in this case, return -1.
    """
    best, least = -1, np.inf
    for edge in range(last + 1, _FIRST - 1, -1):
        error = squared_error(counts, moments, edge, min(ceiling, least))
        if error > ceiling:
            continue
        if best < 0 and error > ceiling * (1 - 2 * _TIE):
            return -1
        if error < least * (1 - _TIE):
            best, least = edge, error
    return best
