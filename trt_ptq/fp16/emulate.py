"""Making float16 visible to ONNX Runtime's CPU.

It has hardly any float16 kernels: it computes such nodes in float32 and drops the casts between them, so that neither
rounding nor overflow shows in its results (seen in 1.32). And in Q/DQ models its optimiser makes int32 biases by
way of float16, which it overflows. Here each node computes in float32 and stores float16, which is what TensorRT's
kernels do at the least: the rounding is written out as casts to float16 and back, which ONNX Runtime leaves alone.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from trt_ptq.onnx_io.lazy_tensor import lazy_cast

_HALF, _FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT


def emulate_float16(model: ir.Model) -> bool:
    """Rewrite `model` in place; returns whether there was anything to round.

    Inputs and outputs keep their types. What DequantizeLinear makes is not rounded, since it goes into INT8 kernels.
    A model with float16 inside the bodies of If, Loop or Scan, or with tensors of unknown type, is left as it is.
    """
    graph = model.graph
    if any(value.dtype is None for node in graph for value in node.outputs if value.name):
        ShapeInferencePass()(model)
    nodes = list(graph)
    inner = (value for node in graph.all_nodes() if node.graph is not graph for value in (*node.inputs, *node.outputs))
    made = [value for node in nodes for value in node.outputs]
    values = [*graph.inputs, *graph.initializers.values(), *made]
    halves = {value for value in values if value.dtype == _HALF}
    unknown = any(value.dtype is None for value in made if value.name)
    if not halves or unknown or any(value is not None and value.dtype == _HALF for value in inner):
        return False
    computing = {node for node in nodes if node.op_type != "Cast" and halves.intersection(node.inputs)}
    for value in values:
        if value not in halves:
            continue
        if value.const_value is not None and value.is_initializer():
            value.const_value = lazy_cast(value.const_value, _FULL, str(value.name))
            value.dtype = _FULL
        else:
            _round(graph, value, value.producer() in computing)
    graph.sort()
    return True


def _round(graph: ir.Graph, value: ir.Value, computed: bool) -> None:
    """Let the readers of `value` read it as float32, rounded where it is `computed`, and not float16 by nature."""
    uses, node, stored = value.uses(), value.producer(), value
    full: ir.Value | None = None
    if node is not None and computed:
        value.dtype = _FULL
        if node.op_type == "DequantizeLinear":
            full = value
        stored = _cast(graph, value, _HALF)
    full = full or _cast(graph, stored, _FULL)
    for reader, index in uses:
        reader.replace_input_with(index, full)
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
