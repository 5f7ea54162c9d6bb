"""Layers beside twins that compute the same from the same activations in INT8, so that one pass compares them all."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.analysis.op_types import WEIGHTED_OPS
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.insert import QdqInserter
from trt_ptq.qdq.plan import QuantizationPlan
from trt_ptq.qdq.weighted import weight_axis


def weighted_int8_layers(plan: QuantizationPlan) -> tuple[str, ...]:
    """The nodes with a weight that run in INT8, by their first output, in graph order; no embeddings."""
    weighted = {one.node_output for one in plan.inputs if one.axis is not None}
    return tuple(one.output for one in plan.nodes if one.output in weighted and one.op_type in WEIGHTED_OPS)


def add_error_outputs(
    model: Model, table: CalibrationTable, plan: QuantizationPlan, layers: Collection[str]
) -> ir.Model:
    """The part of the float model that `layers` need, with a twin beside each, whose input and weight are in INT8.

    Three outputs a layer, in order of `layers`: the sums of (layer - twin) and of its square for each output channel,
    float32 [channels], and how many values the layer's output has, int64.
    """
    part = model.to_ir()
    graph = part.graph
    nodes = {node.outputs[0].name: node for node in graph if node.outputs[0].name in layers}
    twins = _quantized_copies(graph, plan, nodes, QdqInserter(graph, model.opset, plan, table))
    editor = GraphEditor(graph)
    graph.outputs.clear()
    for name in layers:
        graph.outputs.extend(_difference(editor, nodes[name], twins[name]))
    passes.RemoveUnusedNodesPass()(part)
    graph.sort()
    return part


def _quantized_copies(
    graph: ir.Graph, plan: QuantizationPlan, nodes: dict[str | None, ir.Node], inserter: QdqInserter
) -> dict[str, ir.Value]:
    """The output of each node's twin."""
    inputs = {name: list(node.inputs) for name, node in nodes.items()}
    for one in plan.inputs:
        if one.node_output not in nodes:
            continue
        value = nodes[one.node_output].inputs[one.index]
        assert value is not None
        inputs[one.node_output][one.index] = inserter.quantize_input(one, value)
    twins = {}
    for name, node in nodes.items():
        quantized_copy = ir.node(node.op_type, inputs[name], node.attributes)
        quantized_copy.outputs[0].name = f"trt_ptq.twin.{name}"
        graph.append(quantized_copy)
        twins[str(name)] = quantized_copy.outputs[0]
    return twins


def _difference(editor: GraphEditor, node: ir.Node, quantized_copy: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The sums of (output - twin) and its square for each channel, and the number of values."""
    append = partial(editor.node, f"trt_ptq.difference.{node.outputs[0].name}")
    constant = partial(editor.constant, f"trt_ptq.axes.{node.outputs[0].name}")
    difference = append("Sub", node.outputs[0], quantized_copy)
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    shape = weight.shape.numpy()
    if node.op_type in ("Conv", "ConvTranspose"):
        axes = [axis for axis in range(len(shape)) if axis != 1]
    else:  # of any rank, and the channels last
        difference = append("Reshape", difference, constant(ir.tensor(np.array([-1, shape[weight_axis(node)]]))))
        axes = [0]
    reduced = constant(ir.tensor(np.array(axes)))
    total = append("ReduceSum", difference, reduced, keepdims=0)
    squares = append("ReduceSum", append("Mul", difference, difference), reduced, keepdims=0)
    size = append("Size", node.outputs[0])
    for value, dtype in ((total, ir.DataType.FLOAT), (squares, ir.DataType.FLOAT), (size, ir.DataType.INT64)):
        value.type = ir.TensorType(dtype)
    return total, squares, size
