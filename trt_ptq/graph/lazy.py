"""Weights in another type, converted one at a time when the model is written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.batches import Array


def converted(source: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.LazyTensor:
    """The numbers of `source` as float16 or float32; what is finite stays finite (the open bounds of a Clip)."""
    shape = ir.Shape(source.shape.numpy())
    return ir.LazyTensor(lambda: ir.tensor(_cast(source.numpy(), dtype), name=name), dtype, shape, name=name)


def _cast(array: Array, dtype: ir.DataType) -> Array:
    wanted = dtype.numpy()
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    overflown = np.isinf(cast) & np.isfinite(array)
    return np.where(overflown, np.copysign(np.finfo(wanted).max, cast), cast) if overflown.any() else cast
