"""Weights in symmetric per-channel int8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, SMALLEST_SCALE
from trt_ptq.errors import ModelError

_SLAB_VALUES = 2**20


@dataclass(frozen=True)
class QuantizedWeight:
    """`values` int8, as the weight's shape, within [-127, 127]; `scales` float32, one a channel along `axis`."""

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    axis: int


def quantize_weight(weight: npt.NDArray[np.float32], axis: int, name: str) -> QuantizedWeight:
    """Quantize with the scales of `channel_scales`, rounding half to even.

    Raises:
        ModelError: NaN or infinity in the weight.
    """
    scales = channel_scales(weight, axis, name)
    return QuantizedWeight(round_to_int8(weight, scales, axis), scales, axis)


def channel_scales(weight: npt.NDArray[np.float32], axis: int, name: str) -> npt.NDArray[np.float32]:
    """max|w| / 127 for each channel along `axis`; 1 for a channel of zeros, since TensorRT refuses a zero scale.

    Raises:
        ModelError: NaN or infinity in the weight.
    """
    others = tuple(one for one in range(weight.ndim) if one != axis)
    amax = np.maximum(weight.max(axis=others), -weight.min(axis=others))  # NaN and infinity stay what they are
    if not np.isfinite(amax).all():
        raise ModelError(f"weight {name!r} has NaN or infinite values: repair the model first")
    scales: npt.NDArray[np.float32] = (amax / np.float32(INT8_MAX)).astype(np.float32)
    scales[scales < SMALLEST_SCALE] = 1
    return scales


def round_to_int8(weight: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.int8]:
    """`weight` / `scales`, rounded half to even, within [-127, 127]; of the shape of `weight`.

    Works on a few MB at a time, so that a weight of a gigabyte needs no gigabytes beside it.
    """
    spread = scales.reshape([-1 if one == axis else 1 for one in range(weight.ndim)])
    values = np.empty(weight.shape, np.int8)
    rows = max(1, _SLAB_VALUES * len(weight) // max(weight.size, 1))
    for start in range(0, len(weight), rows):
        slab = slice(start, start + rows)
        quotients = weight[slab] / (spread[slab] if axis == 0 else spread)
        np.rint(quotients, out=quotients)
        np.clip(quotients, -INT8_MAX, INT8_MAX, out=quotients)
        values[slab] = quotients
    return values
