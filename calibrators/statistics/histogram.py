"""A histogram that depends only on the multiset of values, not on their order or batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.statistics.kernels import BINS, MAX_EXPONENT, MIN_EXPONENT, fold
from trt_ptq.errors import StatisticsError

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of |x| in 4096 equal bins over [0, 2**exponent).

    The range doubles when a value does not fit, which adds neighboring bins in pairs and is exact.

    Attributes:
        exponent: The smallest that holds every value, but at least -115. So the largest value lies in the upper half:
            between 2048 and 4096 bins are in use.
        counts: int64 [4096].
    """

    exponent: int
    counts: Counts

    @property
    def bin_width(self) -> float:
        """The width of a bin, in the tensor's own unit."""
        return 2.0 ** (self.exponent - 12)

    @property
    def last_bin(self) -> int:
        """The index of the highest non-empty bin; 0 if all are empty."""
        occupied = np.flatnonzero(self.counts)
        return int(occupied[-1]) if occupied.size else 0

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of both multisets together. Exact, associative and commutative."""
        exponent = max(self.exponent, other.exponent)
        return Histogram(exponent, self._widened(exponent) + other._widened(exponent))

    def _widened(self, exponent: int) -> Counts:
        counts = self.counts.copy()
        fold(counts, exponent - self.exponent)
        return counts

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Histogram)
            and self.exponent == other.exponent
            and np.array_equal(self.counts, other.counts)
        )

    def __post_init__(self) -> None:
        if self.counts.shape != (BINS,) or self.counts.dtype != np.int64:
            raise StatisticsError(
                f"a histogram needs int64 [{BINS}] counts, got {self.counts.dtype} {self.counts.shape}"
            )
        if not MIN_EXPONENT <= self.exponent <= MAX_EXPONENT or (self.counts < 0).any():
            raise StatisticsError("a histogram has a negative count or an impossible range")
