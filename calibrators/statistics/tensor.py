"""Everything that is kept of one activation tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.batches import Array
from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.kernels import BINS, MIN_EXPONENT, accumulate, from_key


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of all values that one tensor took.

    `count` is the number of finite values and `nonfinite` of the others, which appear nowhere else;
    `minimum` and `maximum` are exact float32 values (0 when there was no finite value).
    """

    count: int
    zeros: int
    nonfinite: int
    minimum: float
    maximum: float
    histogram: Histogram

    @property
    def amax(self) -> float:
        """Largest magnitude seen: exact."""
        return max(abs(self.minimum), abs(self.maximum))

    def merge(self, other: TensorStatistics) -> TensorStatistics:
        """Statistics of both multisets together: exact, associative, commutative."""
        ranged = [one for one in (self, other) if one.count] or [self]
        return TensorStatistics(
            count=self.count + other.count,
            zeros=self.zeros + other.zeros,
            nonfinite=self.nonfinite + other.nonfinite,
            minimum=min(one.minimum for one in ranged),
            maximum=max(one.maximum for one in ranged),
            histogram=self.histogram.merge(other.histogram),
        )

    def asymmetric(self) -> tuple[float, int]:
        """Scale and uint8 zero point that [minimum, maximum] (with 0 inside) would have; for analysis only.

        scale = (max - min) / 255, zero point = round(-min / scale). TensorRT wants symmetric int8.
        A dead tensor has scale 0 and zero point 0.
        """
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        scale = (high - low) / 255
        return scale, round(-low / scale) if scale else 0


class TensorAccumulator:
    """Takes arrays in any order and batch size; `statistics()` may be asked at any time."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self._exponent = MIN_EXPONENT
        self._finite = self._zeros = self._nonfinite = 0
        self._minimum = np.inf
        self._maximum = -np.inf

    def update(self, values: Array) -> int:
        """Add floating-point `values` of any shape (rounded to float32); returns how many were not finite."""
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted so
            flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        self._exponent, zeros, nonfinite, lowest, highest = accumulate(flat, self._counts, self._exponent)
        finite = flat.size - nonfinite
        self._finite += finite
        self._zeros += zeros
        self._nonfinite += nonfinite
        if finite:
            self._minimum = min(self._minimum, float(from_key(lowest)))
            self._maximum = max(self._maximum, float(from_key(highest)))
        return int(nonfinite)

    def statistics(self) -> TensorStatistics:
        """What has been seen so far."""
        return TensorStatistics(
            count=self._finite,
            zeros=self._zeros,
            nonfinite=self._nonfinite,
            minimum=self._minimum if self._finite else 0.0,
            maximum=self._maximum if self._finite else 0.0,
            histogram=Histogram(int(self._exponent), self._counts.copy()),
        )
