"""Counting loops, compiled by numba. They are exact: results do not depend on block size, order or threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trt_ptq.calibrators.statistics.compiled import compiled

if TYPE_CHECKING:
    from trt_ptq.types import Array

BINS = 4096
ZEROS = 16  # counters that count zeros in turn: with one, each increment would wait for the one before
MIN_EXPONENT = -115  # 2**(12 - exponent) must stay a finite float32
MAX_EXPONENT = 128  # every finite float32 is below 2**128
_BLOCK = 4096  # values: the block is still in cache when it is counted
_LANES = 4  # histograms: in a single one, equal neighbors would wait for each other's increment
_LANE_LIMIT = 2**30  # values between two flushes of the int32 lanes; a multiple of _BLOCK
_CHUNK = 2**17  # 16-bit values that are converted at a time
_ABS_MASK = 0x7FFFFFFF
_INFINITY_BITS = 0x7F800000
NO_KEYS = (_ABS_MASK, -_ABS_MASK - 1)  # lowest and highest key if there are no values


@compiled
def accumulate(values: Array, counts: Array, exponent: int) -> Any:
    """Add float32 `values` [n] to `counts` int64 [4096 + 16] over [0, 2**exponent), whose range grows in place.

    The first 4096 counters are the bins of |x| > 0. The bin index is |x| * 2**(12 - exponent), truncated; it is exact
    because the factor is a power of two. The other 16 count zeros, in turn.

    Returns:
        (exponent, nonfinite, lowest key, highest key): the new exponent, the number of values that are not finite, and
        the range of the finite values as order-preserving int32 keys (see `from_key`).
    """
    few = values.size <= _BLOCK
    lanes = np.zeros((0 if few else _LANES, BINS + ZEROS), np.int32)
    index = np.empty(min(values.size, _BLOCK), np.int32)
    nonfinite = 0
    lowest = np.int32(_ABS_MASK)
    highest = np.int32(-_ABS_MASK - 1)
    scale = np.float32(2.0 ** (12 - exponent))
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        low, high = _index(block, scale, index)
        if max(high, ~low) >= _INFINITY_BITS:
            finite = block[np.isfinite(block)]
            nonfinite += block.size - finite.size
            block = finite
            low, high = _index(block, scale, index)
        if block.size:  # otherwise the block has no finite value
            lowest = min(lowest, low)
            highest = max(highest, high)
        # The bits of positive floats have the same order as the floats.
        needed: Any = np.int64(max(high, ~low, np.int32(0)) >> np.int32(23)) - 126
        if needed > exponent:
            _flush(lanes, counts)
            fold(counts, needed - exponent)
            exponent = needed
            scale = np.float32(2.0 ** (12 - exponent))
            _index(block, scale, index)
        if few:
            for i in range(block.size):
                counts[np.uint32(index[i])] += 1
        else:
            for i in range(block.size):
                lanes[np.uint32(i & (_LANES - 1)), np.uint32(index[i])] += 1
        if (start + _BLOCK) % _LANE_LIMIT == 0:
            _flush(lanes, counts)
    _flush(lanes, counts)
    return exponent, nonfinite, lowest, highest


@compiled
def accumulate_half(bits: Array, bfloat: bool, counts: Array, exponent: int) -> Any:
    """Like `accumulate`, for the uint16 `bits` [n] of bfloat16 values (if `bfloat`) or float16 values."""
    values = np.empty(min(bits.size, _CHUNK), np.float32)
    nonfinite = 0
    lowest = np.int32(_ABS_MASK)
    highest = np.int32(-_ABS_MASK - 1)
    for start in range(0, bits.size, _CHUNK):
        chunk = bits[start : start + _CHUNK]
        _to_float32(chunk, bfloat, values.view(np.uint32))
        exponent, dropped, low, high = accumulate(values[: chunk.size], counts, exponent)
        nonfinite += dropped
        lowest = min(lowest, low)
        highest = max(highest, high)
    return exponent, nonfinite, lowest, highest


@compiled
def _to_float32(bits: Array, bfloat: bool, out: Array) -> None:
    """Write the bits of the float32 with the same value, which is exact, to uint32 `out`."""
    if bfloat:
        for i in range(bits.size):
            out[i] = np.uint32(bits[i]) << np.uint32(16)
        return
    for i in range(bits.size):
        magnitude = np.uint32(bits[i]) & np.uint32(0x7FFF)
        word = (magnitude << np.uint32(13)) + np.uint32((127 - 15) << 23)
        if magnitude >= np.uint32(0x7C00):  # infinity and NaN
            word |= np.uint32(_INFINITY_BITS)
        if magnitude < np.uint32(0x0400):  # zero and subnormal: an integer times 2**-24
            word = np.float32(np.float32(np.int32(magnitude)) * np.float32(2.0**-24)).view(np.uint32)
        out[i] = word | (np.uint32(bits[i]) & np.uint32(0x8000)) << np.uint32(16)


@compiled
def _index(block: Array, scale: Any, index: Array) -> Any:
    """Write the index of each value's counter to `index`; return the lowest and the highest key.

    The index of values beyond the range is meaningless.
    """
    signed = block.view(np.int32)
    unsigned = block.view(np.uint32)
    least = np.int32(_ABS_MASK)
    most = np.int32(-_ABS_MASK - 1)
    furthest = np.uint32(0)  # the negative value of largest magnitude, if any
    for i in range(block.size):
        least = min(least, signed[i])
        most = max(most, signed[i])
        furthest = max(furthest, unsigned[i])
        magnitude = abs(block[i])
        spare = np.int32(BINS) + ((np.int32(i) >> np.int32(2)) & np.int32(ZEROS - 1))
        index[i] = spare if magnitude == np.float32(0) else np.int32(magnitude * scale)
    lowest = least if furthest <= np.uint32(_ABS_MASK) else np.int32(furthest) ^ np.int32(_ABS_MASK)
    highest = most if most >= 0 else least ^ np.int32(_ABS_MASK)
    return lowest, highest


@compiled
def _flush(lanes: Array, counts: Array) -> None:
    """Move the counts of all lanes to `counts`."""
    if lanes.size:
        for i in range(lanes.shape[1]):
            counts[i] += np.int64(lanes[0, i]) + np.int64(lanes[1, i]) + np.int64(lanes[2, i]) + np.int64(lanes[3, i])
        lanes[:] = 0


@compiled
def fold(counts: Array, steps: int) -> None:
    """Widen the range of `counts` [4096 or more] by 2**steps in place, by adding bins in pairs `steps` times."""
    shift = min(steps, 12)
    if shift <= 0:
        return
    for i in range(1, BINS):
        value = counts[i]
        counts[i] = 0
        counts[i >> shift] += value


def from_key(key: int) -> np.float32:
    """Return the float32 of an order-preserving int32 key; -0.0 becomes 0.0."""
    word = np.int32(key if key >= 0 else key ^ _ABS_MASK)
    return np.float32(word.view(np.float32) + np.float32(0))
