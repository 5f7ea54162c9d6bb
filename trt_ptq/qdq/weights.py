"""Symmetric per-channel INT8 quantization of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, SMALLEST_SCALE
from trt_ptq.errors import ModelError

_BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class QuantizedWeight:
    """A quantized weight.

    Attributes:
        values: int8 in [-127, 127], in the shape of the weight.
        scales: float32, one per channel along `axis`.
        axis: The channel axis.
    """

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    axis: int


def quantize_weight(weight: npt.NDArray[np.float32], axis: int, name: str) -> QuantizedWeight:
    """Quantize with the scales of `channel_scales`, rounding half to even.

    Raises:
        ModelError: The weight has NaN or infinite values.
    """
    scales = channel_scales(weight, axis, name)
    return QuantizedWeight(round_to_int8(weight, scales, axis), scales, axis)


def channel_scales(weight: npt.NDArray[np.float32], axis: int, name: str) -> npt.NDArray[np.float32]:
    """max|w| / 127 per channel along `axis`; 1 for a channel of zeros, since TensorRT refuses zero scales.

    Raises:
        ModelError: The weight has NaN or infinite values.
    """
    other_axes = tuple(other for other in range(weight.ndim) if other != axis)
    amax = np.maximum(weight.max(axis=other_axes), -weight.min(axis=other_axes))  # NaN and infinity propagate
    if not np.isfinite(amax).all():
        raise ModelError(f"weight {name!r} has NaN or infinite values: fix the model first")
    scales: npt.NDArray[np.float32] = (amax / np.float32(INT8_MAX)).astype(np.float32)
    scales[scales < SMALLEST_SCALE] = 1
    return scales


def round_to_int8(weight: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.int8]:
    """`weight / scales` along `axis`, rounded half to even and clipped to [-127, 127].

    Works in blocks of a few MB, so that large weights need little extra memory.
    """
    broadcast_scales = scales.reshape([-1 if dimension == axis else 1 for dimension in range(weight.ndim)])
    values = np.empty(weight.shape, np.int8)
    rows = max(1, _BLOCK_VALUES * len(weight) // max(weight.size, 1))
    for start in range(0, len(weight), rows):
        block = slice(start, start + rows)
        quotients = weight[block] / (broadcast_scales[block] if axis == 0 else broadcast_scales)
        np.rint(quotients, out=quotients)
        np.clip(quotients, -INT8_MAX, INT8_MAX, out=quotients)
        values[block] = quotients
    return values
