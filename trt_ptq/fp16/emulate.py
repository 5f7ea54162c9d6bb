"""Emulate float16 arithmetic on ONNX Runtime's CPU provider.

The provider has hardly any float16 kernels: it computes such nodes in float32 and removes the casts between them, so
its results show neither rounding nor overflow (observed in 1.32). In Q/DQ models its optimizer also computes int32
biases in float16, which overflows. Emulated models compute every node in float32 and round its outputs to float16, as
TensorRT's kernels do at least: by a cast to float16 and back, which ONNX Runtime keeps. Nodes that only select or move
values get no casts of their own: they give the same where their input is rounded, or their output instead.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from trt_ptq.analysis.op_types import RESHAPING_OPS
from trt_ptq.onnx_io.domains import ONNX_DOMAINS
from trt_ptq.onnx_io.lazy_tensor import lazy_cast

_FLOAT16, _FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
_SELECTING_OPS = RESHAPING_OPS | {
    *("Abs", "Clip", "Max", "MaxPool", "Min", "Neg", "ReduceMax", "ReduceMin", "Relu"),  # rounding keeps the order
    *("Concat", "DepthToSpace", "Expand", "Gather", "GatherElements", "GatherND", "GlobalMaxPool", "Pad", "Slice"),
    *("SpaceToDepth", "Split", "Tile", "Where"),
}


def emulate_float16(model: ir.Model) -> bool:
    """Rewrite `model` in place to compute in float32 and round to float16.

    Inputs and outputs keep their types. Outputs of DequantizeLinear are not rounded, since INT8 kernels read them.

    Returns:
        False, with `model` unchanged, if it has no float16 tensors, float16 inside the bodies of If, Loop or Scan, or
        tensors of unknown type.
    """
    graph = model.graph
    if any(value.dtype is None for node in graph for value in node.outputs if value.name):
        ShapeInferencePass()(model)
    nodes = list(graph)
    inner = (value for node in graph.all_nodes() if node.graph is not graph for value in (*node.inputs, *node.outputs))
    computed = [value for node in nodes for value in node.outputs]
    values = [*graph.inputs, *graph.initializers.values(), *computed]
    halves = {value for value in values if value.dtype == _FLOAT16}
    has_unknown = any(value.dtype is None for value in computed if value.name)
    if not halves or has_unknown or any(value is not None and value.dtype == _FLOAT16 for value in inner):
        return False
    float16_nodes = {node for node in nodes if node.op_type != "Cast" and halves.intersection(node.inputs)}
    unrounded: set[ir.Value] = set()
    for value in values:
        if value not in halves:
            continue
        node = value.producer()
        if value.const_value is not None and value.is_initializer():
            value.const_value = lazy_cast(value.const_value, _FLOAT32, str(value.name))
            value.dtype = _FLOAT32
        elif node not in float16_nodes or value.is_graph_output():
            _round(graph, value, node in float16_nodes)
        elif _selects(node) and unrounded.isdisjoint(node.inputs):
            value.dtype = _FLOAT32
        elif node.op_type != "DequantizeLinear" and len(value.uses()) == 1 and all(map(_selects, value.consumers())):
            value.dtype = _FLOAT32
            unrounded.add(value)
        else:
            _round(graph, value, True)
            if node.op_type == "DequantizeLinear":
                unrounded.add(value)
    graph.sort()
    return True


def _selects(node: ir.Node) -> bool:
    """Whether rounding the inputs of `node` gives what rounding its outputs does, as it computes no new values."""
    return node.op_type in _SELECTING_OPS and node.domain in ONNX_DOMAINS


def _round(graph: ir.Graph, value: ir.Value, is_computed: bool) -> None:
    """Make the readers of `value` read it as float32; `is_computed`: it has to be rounded first."""
    uses, node, stored = value.uses(), value.producer(), value
    readable: ir.Value | None = None
    if node is not None and is_computed:
        value.dtype = _FLOAT32
        if node.op_type == "DequantizeLinear":
            readable = value
        stored = _cast(graph, value, _FLOAT16)
    readable = readable or _cast(graph, stored, _FLOAT32)
    for reader, index in uses:
        reader.replace_input_with(index, readable)
    for index, output in enumerate(graph.outputs):
        if output is value and stored is not value:
            name, value.name = value.name, f"{value.name}.unrounded"
            stored.name = name
            graph.outputs[index] = stored


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    name = f"{value.name}.as.{dtype.name}"
    output = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    graph.append(ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype)], outputs=[output], name=name))
    return output
