"""The tensors of an observed model, all at once."""

from __future__ import annotations

import numpy as np

from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.types import Array, Batch


def observed_arrays(model: ObservedModel, batch: Batch) -> dict[str, Array]:
    """NumPy copies of all observed tensors by name."""
    return {name: np.asarray(array).copy() for arrays in model.run(batch) for name, array in arrays.items()}
