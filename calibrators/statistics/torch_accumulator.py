"""Accumulates statistics of torch tensors on the device that they are on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.kernels import BINS, MIN_EXPONENT
from trt_ptq.calibrators.statistics.tensor import TensorStatistics

_CHUNK = 2**22  # values scaled at a time: limits extra memory, and float32 counts are exact up to 2**24


class TorchAccumulator:
    """A `TensorAccumulator` for torch tensors, with bit-identical statistics of float32, float16 and bfloat16.

    Activations and the counts, int64 [4096], stay on the device. An update synchronizes with the device once, for the
    range and the number of zeros, and more often only if a value is not finite. On the CPU, `TensorAccumulator` is many
    times faster.

    Raises:
        MissingPackageError: torch is not installed.
    """

    def __init__(self) -> None:
        self._torch = require("torch", extra="torch")
        self._counts = self._torch.zeros(BINS, dtype=self._torch.int64)
        self._exponent = MIN_EXPONENT
        self._finite = self._zeros = self._nonfinite = 0
        self._minimum = math.inf
        self._maximum = -math.inf

    def update(self, tensor: Any) -> int:
        """Add a torch `tensor` of any shape, rounded to float32; return the number of values that are not finite."""
        values = tensor.detach().reshape(-1)
        if values.dtype not in (self._torch.float16, self._torch.bfloat16):
            values = values.float()
        low, high, nonzero = self._range(values)
        nonfinite = 0
        if not (math.isfinite(low) and math.isfinite(high)):  # aminmax propagates NaN
            finite = values[self._torch.isfinite(values)]
            nonfinite = values.numel() - finite.numel()
            values = finite
            low, high, nonzero = self._range(values)
        self._nonfinite += nonfinite
        if values.numel():
            self._finite += values.numel()
            self._zeros += values.numel() - nonzero
            self._minimum = min(self._minimum, low)
            self._maximum = max(self._maximum, high)
            self._count(values, max(-low, high))
        return nonfinite

    def statistics(self) -> TensorStatistics:
        """Return the statistics of all tensors so far."""
        return TensorStatistics(
            count=self._finite,
            zeros=self._zeros,
            nonfinite=self._nonfinite,
            minimum=self._minimum + 0.0 if self._finite else 0.0,  # -0.0 becomes 0.0
            maximum=self._maximum + 0.0 if self._finite else 0.0,
            histogram=Histogram(self._exponent, self._counts.cpu().numpy().copy()),
        )

    def _range(self, values: Any) -> tuple[float, float, int]:
        """Smallest and largest value, and how many are not 0: one small copy to the host."""
        if not values.numel():
            return 0.0, 0.0, 0
        torch = self._torch
        bits = torch.stack(values.aminmax()).float().view(torch.int32)
        low, high, nonzero = torch.cat([bits.long(), torch.count_nonzero(values).reshape(1)]).tolist()
        low, high = np.array([low, high], np.int32).view(np.float32).tolist()
        return low, high, nonzero

    def _count(self, values: Any, largest: float) -> None:
        """Add finite `values` to the counts, in a range that holds `largest`."""
        needed = math.frexp(largest)[1] if largest else MIN_EXPONENT
        counts = self._counts.to(values.device)
        if needed > self._exponent:
            pairs = 2 ** min(needed - self._exponent, 12)
            folded = counts.reshape(-1, pairs).sum(1)
            counts = self._torch.zeros_like(counts)
            counts[: folded.numel()] = folded
            self._exponent = needed
        scale = 2.0 ** (12 - self._exponent)
        for chunk in values.split(_CHUNK):
            # Exact: its bin is value * 4096 / 4096, truncated. Unlike bincount it never waits for a CUDA device.
            counts += self._torch.histc(chunk.abs().float().mul_(scale), bins=BINS, min=0, max=BINS).long()
        self._counts = counts
