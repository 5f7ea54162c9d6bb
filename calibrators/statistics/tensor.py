"""Everything that is kept of one activation tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.kernels import (
    BINS,
    MIN_EXPONENT,
    NO_KEYS,
    ZEROS,
    accumulate,
    accumulate_half,
    from_key,
)
from trt_ptq.types import Array


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

    def asymmetric_qparams(self) -> tuple[float, int]:
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
        self._counts: npt.NDArray[np.int64] = np.zeros(BINS + ZEROS, np.int64)
        self._exponent = MIN_EXPONENT
        self._finite = self._nonfinite = 0
        self._lowest, self._highest = NO_KEYS

    def update(self, values: Array) -> int:
        """Add `values` of any shape and type (rounded to float32); returns how many were not finite.

        float32, float16 and bfloat16 (of ml_dtypes) are read where they lie if they are contiguous.
        """
        if values.dtype == np.float32:
            found = accumulate(_flat(values, np.float32), self._counts, self._exponent)
        elif values.dtype == np.float16:
            found = accumulate_half(_flat(values, np.float16).view(np.uint16), False, self._counts, self._exponent)
        elif values.dtype.name == "bfloat16":
            found = accumulate_half(
                _flat(values, values.dtype.newbyteorder("=")).view(np.uint16), True, self._counts, self._exponent
            )
        else:
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted so
                found = accumulate(_flat(values, np.float32), self._counts, self._exponent)
        self._exponent, nonfinite, lowest, highest = found
        self._finite += values.size - nonfinite
        self._nonfinite += nonfinite
        self._lowest = min(self._lowest, lowest)
        self._highest = max(self._highest, highest)
        return int(nonfinite)

    def statistics(self) -> TensorStatistics:
        """What has been seen so far."""
        counts = self._counts[:BINS].copy()
        zeros = int(self._counts[BINS:].sum())
        counts[0] += zeros
        return TensorStatistics(
            count=self._finite,
            zeros=zeros,
            nonfinite=self._nonfinite,
            minimum=float(from_key(self._lowest)) if self._finite else 0.0,
            maximum=float(from_key(self._highest)) if self._finite else 0.0,
            histogram=Histogram(int(self._exponent), counts),
        )


def _flat(values: Array, dtype: npt.DTypeLike) -> Array:
    """All values in one row, in the machine's byte order."""
    return np.ascontiguousarray(values, dtype).reshape(-1)
