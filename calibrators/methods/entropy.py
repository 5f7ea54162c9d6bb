"""Entropy: the range with the smallest loss of information, by the scheme that NVIDIA published for MLPerf inference.

Source: MLPerf inference v0.5, closed/NVIDIA, "Quantization" (calibration.md). For each bin B of the histogram of
magnitudes, whose first bin is discarded:

1. Truncate the histogram: add all counts beyond B to B.
2. Build a coarse histogram of 127 equal bins between 0 and the midpoint of B; the counts of B go to its last bin.
3. Compute the Kullback-Leibler divergence of the truncated histogram from the coarse one, spread evenly again.

The range is the center of the bin with the smallest divergence; the widest range in case of a tie.

The publication does not specify "how empty bins are treated". Here, the counts of an occupied bin are first spread over
the empty bins just below it: the cumulative distribution is interpolated linearly. Otherwise, the scheme is degenerate
for data with few levels, such as 8-bit images: with one level per coarse bin, no clipping loses anything. With the
interpolation, inputs get their full range, as in the caches that TensorRT writes (maximum 1.0 -> scale 3c010a14,
2.64 -> 3caa54fc, 151.061 -> 3f9849a2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.statistics.compiled import compiled
from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.tensor import TensorStatistics

if TYPE_CHECKING:
    from trt_ptq.types import Array

LEVELS = 127
_TIE = 1e-9  # nats: divergences that differ by less are equal up to rounding
_ROUNDING = 1e-10  # nats: bounds the rounding error of a divergence (4096 additions of up to 44 nats, in float64)
_STRIDE = 64  # bins between the candidates that give an upper bound of the smallest divergence


@dataclass(frozen=True)
class Entropy:
    """The range with the smallest Kullback-Leibler divergence; see the module."""

    name = "entropy"

    def amax(self, tensor: TensorStatistics) -> float:
        counts = without_gaps(tensor.histogram)
        if not counts.any():  # all values are in the first bin
            return tensor.amax
        return (int(best_bin(counts, tensor.histogram.last_bin)) + 0.5) * tensor.histogram.bin_width


def without_gaps(histogram: Histogram) -> npt.NDArray[np.float64]:
    """Return counts [4096] without the first bin, and with each occupied bin spread over the gap below it."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0
    occupied = np.flatnonzero(counts)
    gaps = np.diff(occupied, prepend=0)
    spread = np.zeros_like(counts)
    if occupied.size:
        spread[1 : occupied[-1] + 1] = np.repeat(counts[occupied] / gaps, gaps)
    return spread


@compiled
def divergence(mass: Array, entropy: Array, candidate: int, ceiling: float) -> float:
    """Return the divergence, in nats, of the range that ends in bin `candidate`, times the total count.

    With C_j counts in coarse bin j of w_j bins, it is sum_i p_i log p_i - sum_j C_j log(C_j / w_j). With `mass` and
    `entropy`, the cumulative sums [bins + 1] of p and of p log p, that takes O(127). Each coarse bin adds at least 0
    (log sum inequality), so the sum stops once it exceeds `ceiling`, and the result is infinity. The last bin, which
    has the clipped counts, is added first.
    """
    total = mass[-1]
    folded = total - mass[candidate]
    result: float = entropy[candidate] + (folded * np.log(folded) if folded > 0 else 0.0)  # 0: less than rounding
    border = ((LEVELS - 1) * (2 * candidate + 1) + LEVELS - 1) // LEVELS // 2
    inside = total - mass[border]
    coarse = inside * np.log(inside / (candidate + 1 - border)) if inside > 0 else 0.0
    # The last coarse bin and those below `start` add result + entropy[start] - entropy[border] - coarse.
    bound = ceiling + _ROUNDING * total + entropy[border] + coarse
    start = 1
    for level in range(1, LEVELS):
        if result + entropy[start] > bound:
            return np.inf
        # Bin i belongs to coarse bin floor((i + 1/2) * 127 / (candidate + 1/2)), here in integers.
        stop = (level * (2 * candidate + 1) + LEVELS - 1) // LEVELS // 2
        inside = mass[stop] - mass[start]
        if inside > 0:
            result -= inside * np.log(inside / (stop - start))
        start = stop
    return result - coarse


@compiled
def cumulative(counts: Array, last: int) -> tuple[Array, Array]:
    """Return the cumulative sums [last + 2] of the counts p up to bin `last`, and of p log p."""
    mass = np.zeros(last + 2)
    entropy = np.zeros(last + 2)
    for i in range(last + 1):
        count = counts[i]
        mass[i + 1] = mass[i] + count
        entropy[i + 1] = entropy[i] + (count * np.log(count) if count > 0 else 0.0)
    return mass, entropy


@compiled
def best_bin(counts: Array, last: int) -> int:
    """Return the bin whose center is the best range, among the bins from 127 to `last`."""
    if last < LEVELS:
        return last
    mass, entropy = cumulative(counts, last)
    ceiling = np.inf
    for candidate in range(last, LEVELS - 1, -_STRIDE):
        ceiling = min(ceiling, divergence(mass, entropy, candidate, ceiling))
    best = widest_best(mass, entropy, last, ceiling + 2 * _TIE * mass[-1])
    return best if best >= 0 else widest_best(mass, entropy, last, np.inf)


@compiled
def widest_best(mass: Array, entropy: Array, last: int, ceiling: float) -> int:
    """Return the last bin, from wide to narrow, that improves on those before it by more than a tie.

    Bins above `ceiling` cannot be the best, and are skipped. But a skipped bin within a tie above the first bin below
    `ceiling` might have prevented that from counting as an improvement; in this case, return -1.
    """
    tie = _TIE * mass[-1]
    best, least = -1, np.inf
    for candidate in range(last, LEVELS - 1, -1):
        lost = divergence(mass, entropy, candidate, min(ceiling, least))
        if lost > ceiling:
            continue
        if best < 0 and lost > ceiling - tie:
            return -1
        if lost < least - tie:
            best, least = candidate, lost
    return best
