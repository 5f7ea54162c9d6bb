"""Dequantize the INT8 weights of large models before ONNX Runtime loads them.

ONNX Runtime does so while it loads a model, and keeps what it computed beside what it packs from it: 1.6 times the
memory of float weights. Float weights in a file are mapped instead, and packed one by one.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.onnx_io.domains import ONNX_DOMAINS
from trt_ptq.onnx_io.lazy_tensor import lazy_map
from trt_ptq.types import Array

_MANY_VALUES = 2**28  # of weights, a gigabyte in float32: fewer are dequantized faster than written


def has_many_int8_weights(model: onnx.ModelProto) -> bool:
    """Whether the INT8 constants of a model take a gigabyte or more in float32."""
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    count: int = sum(math.prod(tensor.dims) for tensor in weights)
    return count >= _MANY_VALUES


def dequantize_weights(model: ir.Model) -> None:
    """Replace INT8 weights by float32 ones, in place; each is computed when the model is written."""
    graph = model.graph
    for node in [node for node in graph if _reads_weight(node)]:
        weight, scales = node.inputs[0], node.inputs[1]
        assert weight is not None and weight.const_value is not None
        assert scales is not None and scales.const_value is not None
        output = node.outputs[0]
        axis = node.attributes.get_int("axis", 1)
        dequantize = partial(_dequantized, scales=scales.const_value.numpy(), axis=axis)
        tensor = lazy_map(weight.const_value, dequantize, ir.DataType.FLOAT, name_of(output))
        constant = ir.val(name_of(output), const_value=tensor)
        output.replace_all_uses_with(constant)
        graph.remove(node, safe=True)
        graph.register_initializer(constant)
        if not weight.uses():
            del graph.initializers[name_of(weight)]


def _reads_weight(node: ir.Node) -> bool:
    """Whether `node` dequantizes a constant symmetrically, to float32, by tensor or by channel."""
    if node.op_type != "DequantizeLinear" or node.domain not in ONNX_DOMAINS or node.outputs[0].is_graph_output():
        return False
    weight, scales, *zero_points = node.inputs
    return (
        _is_constant(weight, ir.DataType.INT8)
        and _is_constant(scales, ir.DataType.FLOAT)
        and all(_is_constant(point, ir.DataType.INT8) and not _values(point).any() for point in zero_points)
        and not node.attributes.get_int("block_size", 0)
        and node.attributes.get_int("output_dtype", ir.DataType.FLOAT) in (0, ir.DataType.FLOAT)
    )


def _is_constant(value: ir.Value | None, dtype: ir.DataType) -> bool:
    return value is not None and value.is_initializer() and not value.is_graph_input() and value.dtype == dtype


def _values(value: ir.Value | None) -> Array:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def _dequantized(weight: Array, scales: Array, axis: int) -> Array:
    shape = [1] * weight.ndim
    if scales.size > 1:
        shape[axis] = scales.size
    product: Array = weight * scales.reshape(shape).astype(np.float32)
    return product
