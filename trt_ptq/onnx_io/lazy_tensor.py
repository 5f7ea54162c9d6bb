"""Weights computed from others one at a time, as the model is written: all of them may not fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from trt_ptq.onnx_io.external_data import read_once
from trt_ptq.types import Array


def lazy_cast(source: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.LazyTensor:
    """The numbers of `source` as float16 or float32; what is finite stays finite (the open bounds of a Clip)."""
    return lazy_map(source, lambda array: _cast(array, dtype), dtype, name)


def lazy_map(
    source: ir.TensorProtocol, function: Callable[[Array], Array], dtype: ir.DataType, name: str
) -> ir.LazyTensor:
    """`function` of the values of `source`, of the same shape and of type `dtype`; made anew each time it is read."""
    shape = ir.Shape(source.shape.numpy())
    return ir.LazyTensor(lambda: ir.tensor(read_once(source, function), name=name), dtype, shape, name=name)


def _cast(array: Array, dtype: ir.DataType) -> Array:
    wanted = dtype.numpy()
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    overflown = np.isinf(cast) & np.isfinite(array)
    return np.where(overflown, np.copysign(np.finfo(wanted).max, cast), cast) if overflown.any() else cast
