"""The statistics of one activation tensor."""

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
    """The statistics of all values that a tensor had over a data set.

    Attributes:
        count: Number of finite values.
        zeros: Number of zeros among them.
        nonfinite: Number of NaN and infinite values, which are in none of the other statistics.
        minimum: Smallest finite value, an exact float32; 0 if there is none.
        maximum: Largest finite value, an exact float32; 0 if there is none.
        histogram: Histogram of the magnitudes of the finite values.
    """

    count: int
    zeros: int
    nonfinite: int
    minimum: float
    maximum: float
    histogram: Histogram

    @property
    def amax(self) -> float:
        """The largest magnitude, exact."""
        return max(abs(self.minimum), abs(self.maximum))

    def merge(self, other: TensorStatistics) -> TensorStatistics:
        """Return the statistics of both multisets together. Exact, associative and commutative."""
        nonempty = [part for part in (self, other) if part.count] or [self]
        return TensorStatistics(
            count=self.count + other.count,
            zeros=self.zeros + other.zeros,
            nonfinite=self.nonfinite + other.nonfinite,
            minimum=min(part.minimum for part in nonempty),
            maximum=max(part.maximum for part in nonempty),
            histogram=self.histogram.merge(other.histogram),
        )

    def asymmetric_qparams(self) -> tuple[float, int]:
        """Return the scale and zero point of asymmetric uint8 quantization, for analysis only.

        scale = (max - min) / 255 and zero point = round(-min / scale), with the range extended to include 0. Both are
        0 for a tensor that is always 0. TensorRT uses symmetric INT8.
        """
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        scale = (high - low) / 255
        return scale, round(-low / scale) if scale else 0


class TensorAccumulator:
    """Accumulates the statistics of a tensor from arrays in any order and of any batch size."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(BINS + ZEROS, np.int64)
        self._exponent = MIN_EXPONENT
        self._finite = self._nonfinite = 0
        self._lowest, self._highest = NO_KEYS

    def update(self, values: Array) -> int:
        """Add an array.

        Contiguous arrays of float32, float16 and bfloat16 (of ml_dtypes) are not copied.

        Args:
            values: Any shape; types other than these three are rounded to float32.

        Returns:
            The number of values that are not finite.
        """
        if values.dtype == np.float32:
            result = accumulate(_flat(values, np.float32), self._counts, self._exponent)
        elif values.dtype == np.float16:
            result = accumulate_half(_flat(values, np.float16).view(np.uint16), False, self._counts, self._exponent)
        elif values.dtype.name == "bfloat16":
            result = accumulate_half(
                _flat(values, values.dtype.newbyteorder("=")).view(np.uint16), True, self._counts, self._exponent
            )
        else:
            with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are counted as such
                result = accumulate(_flat(values, np.float32), self._counts, self._exponent)
        self._exponent, nonfinite, lowest, highest = result
        self._finite += values.size - nonfinite
        self._nonfinite += nonfinite
        self._lowest = min(self._lowest, lowest)
        self._highest = max(self._highest, highest)
        return int(nonfinite)

    def statistics(self) -> TensorStatistics:
        """Return the statistics of all arrays so far."""
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
    """Flatten `values`, in native byte order."""
    return np.ascontiguousarray(values, dtype).reshape(-1)
