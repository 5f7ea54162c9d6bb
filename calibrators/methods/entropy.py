"""Entropy: the range that loses the least information, as NVIDIA published its scheme for MLPerf inference.

Source: MLPerf inference v0.5, closed/NVIDIA, "Quantization" (calibration.md). For each bin B of the histogram of
magnitudes, whose first bin is discarded:

1. truncate: everything beyond B counts as B;
2. make a coarse histogram of 127 equal bins between 0 and the midpoint of B; what is in B goes to its last bin;
3. take the Kullback-Leibler divergence of the truncated histogram from the coarse one, spread evenly again.

The range is the centre of the bin with the least divergence. Of equal ones the widest is taken.

The publication leaves open "how empty bins are treated". Here the counts of an occupied bin are first spread over
the empty bins just below it (the cumulative distribution is interpolated linearly). Without it the scheme is
degenerate for data of few levels, such as 8-bit images: with one level a coarse bin nothing is lost by any
clipping. With it, inputs get their whole range, as in the caches that TensorRT itself wrote
(maximum 1.0 -> scale 3c010a14, 2.64 -> 3caa54fc, 151.061 -> 3f9849a2).
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
_TIE = 1e-9  # nats: divergences closer than this are equal but for rounding
_ROUNDING = 1e-10  # nats: more than the sums of a divergence lose (4096 additions of up to 44 nats, in float64)
_STRIDE = 64  # bins between the candidates that bound the least divergence from above


@dataclass(frozen=True)
class Entropy:
    """The range of least Kullback-Leibler divergence."""

    name = "entropy"

    def amax(self, tensor: TensorStatistics) -> float:
        counts = without_gaps(tensor.histogram)
        if not counts.any():  # nothing but zeros and the first bin
            return tensor.amax
        return (int(best_bin(counts, tensor.histogram.last_bin)) + 0.5) * tensor.histogram.bin_width


def without_gaps(histogram: Histogram) -> npt.NDArray[np.float64]:
    """Counts [4096] with the first bin discarded and each occupied bin spread over the gap below it."""
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
    """Total count times the divergence, in nats, of the range that ends in bin `candidate`.

    With C_j counts in coarse bin j, made of w_j bins, that is sum_i p_i log p_i - sum_j C_j log(C_j / w_j): O(127)
    with `mass` and `entropy`, the cumulative sums [bins + 1] of p and of p log p. No coarse bin adds less than 0 (log
    sum inequality), so that the sum ends, with infinity, once it exceeds `ceiling`; the last bin, where what is
    clipped lies, is looked at first.
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
        # Bin i lies in coarse bin floor((i + 1/2) * 127 / (candidate + 1/2)): in integers.
        stop = (level * (2 * candidate + 1) + LEVELS - 1) // LEVELS // 2
        inside = mass[stop] - mass[start]
        if inside > 0:
            result -= inside * np.log(inside / (stop - start))
        start = stop
    return result - coarse


@compiled
def cumulative(counts: Array, last: int) -> tuple[Array, Array]:
    """Cumulative sums [last + 2] of the counts p up to bin `last`, and of p log p."""
    mass = np.zeros(last + 2)
    entropy = np.zeros(last + 2)
    for i in range(last + 1):
        count = counts[i]
        mass[i + 1] = mass[i] + count
        entropy[i + 1] = entropy[i] + (count * np.log(count) if count > 0 else 0.0)
    return mass, entropy


@compiled
def best_bin(counts: Array, last: int) -> int:
    """The bin whose centre is the best range, among the bins from 127 to `last`."""
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
    """From wide to narrow, the last bin to improve on those before it by more than a tie.

    Bins above `ceiling` are passed over: none of them is the best. They might have kept one within a tie below from
    counting as an improvement: where that could be, -1.
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
