"""Compares the values of model inputs in two sets of data, which may have been preprocessed differently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from trt_ptq.types import Array, Batch, Feeds

_REMEMBERED_SAMPLES = 10_000  # by input: memory must not grow with the data
_ENOUGH_SAMPLES, _ENOUGH_VALUES = 8, 64  # fewer may differ by chance
_LARGER = 4.0  # times: ImageNet's standardization widens a range of 0 to 1 by 4.4
_BELOW_ZERO = 0.25  # fraction of a sample's range
_TYPICAL = (10, 90)  # percentiles: a black image or one loud sample decides nothing


@dataclass
class _InputRange:
    """The range of one input, overall and by sample; constant samples count only overall, as masks and padding are."""

    is_float: bool
    values: int = 0
    low: float = np.inf
    high: float = -np.inf
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)

    def add(self, array: Array) -> None:
        is_batch = array.ndim > 1 and array.size > len(array)
        samples = array.reshape(len(array) if is_batch else 1, -1)
        if self.is_float and not np.isfinite(samples).all():
            samples = samples[np.isfinite(samples).all(axis=1)]
        if not samples.size:
            return
        lows, highs = samples.min(axis=1).astype(np.float64), samples.max(axis=1).astype(np.float64)
        self.values += samples.size
        self.low, self.high = min(self.low, float(lows.min())), max(self.high, float(highs.max()))
        varying = np.flatnonzero(lows < highs)[: _REMEMBERED_SAMPLES - len(self.lows)]
        self.lows += lows[varying].tolist()
        self.highs += highs[varying].tolist()

    def differs(self, other: _InputRange) -> bool:
        """Whether no random split of one set of data would lead to both ranges."""
        if self.is_float != other.is_float or min(self.values, other.values) < _ENOUGH_VALUES:
            return False
        if not self.is_float:
            varying = self.low < self.high and other.low < other.high
            return varying and (self.high < other.low or other.high < self.low)
        if min(len(self.lows), len(other.lows)) < _ENOUGH_SAMPLES:
            return False
        return any(
            one._is_wider(another) or one._is_above(another) or one._alone_is_below_zero(another)
            for one, another in ((self, other), (other, self))
        )

    def _is_wider(self, other: _InputRange) -> bool:
        widths, others = self._widths(), other._widths()
        clear = np.median(widths) > _LARGER * np.median(others)
        return bool(clear and np.percentile(widths, _TYPICAL[0]) > np.percentile(others, _TYPICAL[1]))

    def _is_above(self, other: _InputRange) -> bool:
        """Whether the gap between the two ranges is larger than both."""
        return self.low - other.high > max(self.high - self.low, other.high - other.low)

    def _alone_is_below_zero(self, other: _InputRange) -> bool:
        """Whether nearly all samples reach far below 0, and none of the other data."""
        return bool(other.low >= 0 and np.percentile(self.lows / self._widths(), _TYPICAL[1]) < -_BELOW_ZERO)

    def _widths(self) -> Array:
        return np.subtract(self.highs, self.lows)

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"


@dataclass
class InputRanges:
    """Observes the range of each input: of the first `max_batches` batches, or of all."""

    max_batches: int | None = None
    _batches: int = 0
    _ranges: dict[str, _InputRange] = field(default_factory=dict)

    def observe(self, batch: Batch) -> None:
        """Add the values of `batch`."""
        self.add(batch.feeds)

    def add(self, feeds: Feeds) -> None:
        """Add the values of one batch; inputs that are neither floats nor integers are left out."""
        if self._batches == self.max_batches:
            return
        self._batches += 1
        for name, feed in feeds.items():
            array = np.asarray(feed)
            is_float = bool(np.issubdtype(array.dtype, np.floating))
            if is_float or np.issubdtype(array.dtype, np.integer):
                self._ranges.setdefault(name, _InputRange(is_float)).add(array)

    def differences(self, other: InputRanges) -> Iterable[tuple[str, str, str]]:
        """The inputs whose values differ clearly: name, range here, range in `other`.

        Clearly: typical samples of one have ranges more than 4 times as wide as those of the other, only one has
        values far below 0, or the gap between both is larger than either. Integers must be disjoint.
        """
        for name, values in self._ranges.items():
            if name in other._ranges and values.differs(other._ranges[name]):
                yield name, str(values), str(other._ranges[name])
