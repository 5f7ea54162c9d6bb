"""Convert quantization scales to float16 without moving the dequantized values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.table.calibration_table import INT8_MAX

_MAX_SCALE_GROWTH = 2  # if float16 has no finer scale; costs one bit of precision


def float16_holds(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which scales float16 can represent: no int8 value moves by more than half a step (true from 2**-17 to 65504)."""
    with np.errstate(over="ignore"):
        error = np.abs(scales.astype(np.float16).astype(np.float32) - scales)
    return np.asarray(error * INT8_MAX <= scales / 2)


def rescale(
    values: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]] | None:
    """Convert an int8 weight to float16 scales.

    Channels whose scale float16 can represent keep their values. The others get the next larger float16 scale, and
    their values are rounded again.

    Args:
        values: The int8 weight.
        scales: Its float32 scales, one per channel along `axis`, or a scalar.
        axis: The channel axis.

    Returns:
        The int8 weight and its float16 scales; None if float16 is too coarse for them.
    """
    representable = float16_holds(scales)
    nearest = scales.astype(np.float16)
    above = np.where(nearest.astype(np.float32) < scales, np.nextafter(nearest, np.float16(np.inf)), nearest)
    float16_scales = np.where(representable, nearest, above)
    if (float16_scales.astype(np.float32) > scales * _MAX_SCALE_GROWTH).any():
        return None
    factors = np.where(representable, np.float32(1), scales / float16_scales.astype(np.float32))
    if factors.ndim:
        factors = factors.reshape([-1 if dimension == axis else 1 for dimension in range(values.ndim)])
    return np.rint(values * factors).astype(np.int8), float16_scales
