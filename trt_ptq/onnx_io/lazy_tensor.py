"""Tensors computed from others when the model is written, one at a time: all of them may not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from trt_ptq.onnx_io.external_data import read_once
from trt_ptq.types import Array


def lazy_cast(source: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.LazyTensor:
    """`source` as float16 or float32; finite values beyond the range (bounds of a Clip) saturate, as infinity would
    change the result."""
    return lazy_map(source, lambda array: _cast(array, dtype), dtype, name)


def lazy_map(
    source: ir.TensorProtocol,
    function: Callable[[Array], Array],
    dtype: ir.DataType,
    name: str,
    shape: Sequence[int] | None = None,
) -> ir.LazyTensor:
    """A tensor of `function(values of source)`, computed at each read.

    Args:
        source: the tensor.
        function: gives `dtype`.
        dtype: the type of the result.
        name: the name of the result.
        shape: the shape of the result; that of `source` if not given.
    """
    result_shape = ir.Shape(source.shape.numpy() if shape is None else shape)
    return ir.LazyTensor(lambda: ir.tensor(read_once(source, function), name=name), dtype, result_shape, name=name)


def _cast(array: Array, dtype: ir.DataType) -> Array:
    target = dtype.numpy()
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    overflown = np.isinf(cast) & np.isfinite(array)
    return np.where(overflown, np.copysign(np.finfo(target).max, cast), cast) if overflown.any() else cast
