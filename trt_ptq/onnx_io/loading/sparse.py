"""Sparse initializers and constants as dense ones, which ONNX Runtime and TensorRT read alike."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_ptq.onnx_io.domains import all_nodes


def make_dense(proto: onnx.ModelProto) -> bool:
    """Replace the sparse initializers and sparse constants of `proto`, bodies and functions included, in place.

    Returns:
        Whether there were any.
    """
    found = _make_initializers_dense(proto.graph)
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    for node in all_nodes(nodes):
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                found |= _make_initializers_dense(body)
            if node.op_type == "Constant" and attribute.HasField("sparse_tensor"):
                attribute.CopyFrom(helper.make_attribute("value", _dense(attribute.sparse_tensor)))
                found = True
    return found


def _make_initializers_dense(graph: onnx.GraphProto) -> bool:
    if not graph.sparse_initializer:  # any change of an absent body would add an empty one
        return False
    graph.initializer.extend(map(_dense, graph.sparse_initializer))
    del graph.sparse_initializer[:]
    return True


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """The tensor with the values of `sparse`, whose indices are linear, or one row per value."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    if indices.ndim == 2:
        indices = np.ravel_multi_index(tuple(indices.T), shape)
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[indices] = values
    tensor = numpy_helper.from_array(dense.reshape(shape), sparse.values.name)
    tensor.data_type = sparse.values.data_type
    return tensor
