"""A graph with a quantized copy beside each layer, which reads the same activations, to measure the error of INT8."""

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
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.qdq.weighted import weight_axis


def weighted_int8_layers(plan: QuantizationPlan) -> tuple[str, ...]:
    """The nodes with a weight that run in INT8, by their first output, in graph order; no embeddings."""
    weighted = {quantized.node_output for quantized in plan.inputs if quantized.axis is not None}
    return tuple(node.output for node in plan.nodes if node.output in weighted and node.op_type in WEIGHTED_OPS)


def add_error_outputs(
    model: Model,
    table: CalibrationTable,
    plan: QuantizationPlan,
    layers: Collection[str],
    stored_weights: StoredWeights | None = None,
) -> ir.Model:
    """The part of the float model that `layers` need, with a copy beside each whose input and weight are quantized.

    Returns:
        The graph, with three outputs per layer in the order of `layers`: the sums of (layer - copy) and of its square
        for each output channel, float32 [channels], and the number of values in the layer's output, int64.
    """
    part = model.to_ir()
    graph = part.graph
    nodes = {node.outputs[0].name: node for node in graph if node.outputs[0].name in layers}
    inserter = QdqInserter(graph, model.opset, plan, table, stored_weights)
    copies = _quantized_copies(graph, plan, nodes, inserter)
    editor = GraphEditor(graph)
    graph.outputs.clear()
    for name in layers:
        graph.outputs.extend(_difference(editor, nodes[name], copies[name]))
    passes.RemoveUnusedNodesPass()(part)
    graph.sort()
    return part


def _quantized_copies(
    graph: ir.Graph, plan: QuantizationPlan, nodes: dict[str | None, ir.Node], inserter: QdqInserter
) -> dict[str, ir.Value]:
    """Add a quantized copy of each node; return their outputs by layer."""
    inputs = {name: list(node.inputs) for name, node in nodes.items()}
    for quantized in plan.inputs:
        if quantized.node_output not in nodes:
            continue
        value = nodes[quantized.node_output].inputs[quantized.index]
        assert value is not None
        inputs[quantized.node_output][quantized.index] = inserter.quantize_input(quantized, value)
    copies = {}
    for name, node in nodes.items():
        quantized_copy = ir.node(node.op_type, inputs[name], node.attributes)
        quantized_copy.outputs[0].name = f"trt_ptq.quantized.{name}"
        graph.append(quantized_copy)
        copies[str(name)] = quantized_copy.outputs[0]
    return copies


def _difference(editor: GraphEditor, node: ir.Node, quantized_copy: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Add the sums of (output - copy) and its square for each channel, and the number of values."""
    append = partial(editor.node, f"trt_ptq.difference.{node.outputs[0].name}")
    constant = partial(editor.constant, f"trt_ptq.axes.{node.outputs[0].name}")
    difference = append("Sub", node.outputs[0], quantized_copy)
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    shape = weight.shape.numpy()
    if node.op_type in ("Conv", "ConvTranspose"):
        axes = [axis for axis in range(len(shape)) if axis != 1]
    else:  # any rank, channels last
        difference = append("Reshape", difference, constant(ir.tensor(np.array([-1, shape[weight_axis(node)]]))))
        axes = [0]
    reduced = constant(ir.tensor(np.array(axes)))
    total = append("ReduceSum", difference, reduced, keepdims=0)
    squares = append("ReduceSum", append("Mul", difference, difference), reduced, keepdims=0)
    size = append("Size", node.outputs[0])
    for value, dtype in ((total, ir.DataType.FLOAT), (squares, ir.DataType.FLOAT), (size, ir.DataType.INT64)):
        value.type = ir.TensorType(dtype)
    return total, squares, size
