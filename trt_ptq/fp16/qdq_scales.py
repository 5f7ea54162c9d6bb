"""Quantization scales in float16, without moving what they stand for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.table.calibration_table import INT8_MAX

_LARGEST_GROWTH = 2  # of a step, where float16 has no finer one: costs a bit


def float16_holds(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where float16 is fine enough: no int8 value moves by more than half a step. So it is from 2**-17 to 65504."""
    with np.errstate(over="ignore"):
        error = np.abs(scales.astype(np.float16).astype(np.float32) - scales)
    return np.asarray(error * INT8_MAX <= scales / 2)


def rescale(
    values: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]] | None:
    """The same int8 weight with float16 scales; None where they would be too coarse.

    Channels whose scale float16 holds keep their values. The others get the next larger float16 scale, and their
    values are rounded anew to it.
    """
    held = float16_holds(scales)
    nearest = scales.astype(np.float16)
    above = np.where(nearest.astype(np.float32) < scales, np.nextafter(nearest, np.float16(np.inf)), nearest)
    halves = np.where(held, nearest, above)
    if (halves.astype(np.float32) > scales * _LARGEST_GROWTH).any():
        return None
    factor = np.where(held, np.float32(1), scales / halves.astype(np.float32))
    spread = factor.reshape([-1 if one == axis else 1 for one in range(values.ndim)]) if factor.ndim else factor
    return np.rint(values * spread).astype(np.int8), halves
