"""Weights in symmetric per-channel int8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.errors import ModelError
from trt_ptq.calibrators.table.table import INT8_MAX, SMALLEST_SCALE


@dataclass(frozen=True)
class QuantizedWeight:
    """`values` int8, as the weight's shape, within [-127, 127]; `scales` float32, one a channel along `axis`."""

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    axis: int


def quantize_weight(weight: npt.NDArray[np.float32], axis: int, name: str) -> QuantizedWeight:
    """Quantize with scale = max|w| / 127 for each channel, rounding half to even.

    A channel of zeros gets scale 1, since TensorRT refuses a zero scale.

    Raises:
        ModelError: NaN or infinity in the weight.
    """
    if not np.isfinite(weight).all():
        raise ModelError(f"weight {name!r} has NaN or infinite values: repair the model first")
    others = tuple(one for one in range(weight.ndim) if one != axis)
    scales = (np.abs(weight).max(axis=others) / np.float32(INT8_MAX)).astype(np.float32)
    scales[scales < SMALLEST_SCALE] = 1
    spread = scales.reshape([-1 if one == axis else 1 for one in range(weight.ndim)])
    values = np.clip(np.rint(weight / spread), -INT8_MAX, INT8_MAX).astype(np.int8)
    return QuantizedWeight(values, scales, axis)
