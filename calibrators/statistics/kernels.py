"""Counting loops, compiled by numba. All exact: no result depends on block size, order or threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trt_ptq.calibrators.statistics.compiled import compiled

if TYPE_CHECKING:
    from trt_ptq.calibrators.batches import Array

BINS = 4096
MIN_EXPONENT = -115  # 2**(12 - exponent) must stay a finite float32
MAX_EXPONENT = 128  # every finite float32 is below 2**128
_BLOCK = 4096  # values; the range pass leaves a block in cache for the counting pass
_LANES = 4  # equal neighbours would wait for each other's increment in a single histogram
_LANE_LIMIT = 2**31 - 1  # what an int32 lane can count
_INFINITY_BITS = 0x7F800000
_ABS_MASK = 0x7FFFFFFF


@compiled
def accumulate(values: Array, counts: Array, exponent: int) -> Any:
    """Add float32 `values` [n] to `counts` int64[4096] of |x| over [0, 2**exponent), which grows in place.

    A bin index is |x| * 2**(12 - exponent), truncated: a power of two, so exact.

    Returns:
        (exponent, zeros, nonfinite, lowest key, highest key): the new exponent, how many values were zero
        and non-finite, and the range as order-preserving int32 keys (see `from_key`), over finite values.
    """
    lanes = np.zeros((_LANES, BINS), np.int32)
    finite = np.empty(_BLOCK, np.float32)
    index = np.empty(_BLOCK, np.int32)
    zeros = nonfinite = pending = 0
    lowest = np.int32(_ABS_MASK)
    highest = np.int32(-_ABS_MASK - 1)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        largest = _largest(block)
        if largest >= _INFINITY_BITS:
            kept = 0
            for i in range(block.size):
                if abs(block[i]) < np.inf:
                    finite[kept] = block[i]
                    kept += 1
            nonfinite += block.size - kept
            block = finite[:kept]
            largest = _largest(block)
        bits = block.view(np.int32)
        block_zeros: Any = np.int32(0)
        for i in range(bits.size):  # sign and magnitude order like two's complement once negatives are flipped
            word = bits[i]
            key = word ^ ((word >> np.int32(31)) & np.int32(_ABS_MASK))
            lowest = min(lowest, key)
            highest = max(highest, key)
            block_zeros += np.int32((word & np.int32(_ABS_MASK)) == 0)
        zeros += block_zeros

        needed: Any = max(np.int64(largest >> 23) - 126, MIN_EXPONENT)
        if needed > exponent or pending + _BLOCK > _LANE_LIMIT:
            _flush(lanes, counts)
            pending = 0
        if needed > exponent:
            fold(counts, needed - exponent)
            exponent = needed
        scale = np.float32(2.0 ** (12 - exponent))
        for i in range(block.size):
            index[i] = np.int32(abs(block[i]) * scale)
        for i in range(block.size):
            lanes[np.uint32(i & 3), np.uint32(index[i])] += 1
        pending += block.size
    _flush(lanes, counts)
    return exponent, zeros, nonfinite, lowest, highest


@compiled
def _largest(block: Array) -> Any:
    """Bits of the largest magnitude: magnitudes of floats order like their bits, NaN above infinity."""
    bits = block.view(np.int32)
    largest = np.int32(0)
    for i in range(bits.size):
        largest = max(largest, bits[i] & np.int32(_ABS_MASK))
    return largest


@compiled
def _flush(lanes: Array, counts: Array) -> None:
    """Move the counts of all lanes to `counts`."""
    for lane in range(lanes.shape[0]):
        for i in range(BINS):
            counts[i] += lanes[lane, i]
            lanes[lane, i] = 0


@compiled
def fold(counts: Array, steps: int) -> None:
    """Widen the range of `counts` [4096] by 2**steps in place: neighbours are added in pairs, `steps` times."""
    shift = min(steps, 12)
    if shift <= 0:
        return
    for i in range(1, BINS):
        value = counts[i]
        counts[i] = 0
        counts[i >> shift] += value


def from_key(key: int) -> np.float32:
    """The float32 behind an order-preserving int32 key; -0.0 becomes 0.0."""
    word = np.int32(key if key >= 0 else key ^ _ABS_MASK)
    return np.float32(word.view(np.float32) + np.float32(0))
