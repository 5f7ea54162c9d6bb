"""Insert QuantizeLinear and DequantizeLinear into a float model, with ranges from a calibration table."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.constants import constant_value
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import ModelError, TableError
from trt_ptq.onnx_io.external_data import read_once
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.lazy_tensor import lazy_map
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.plan import NodePlan, QuantizationPlan, QuantizedInput, plan_quantization
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.qdq.weights import channel_scales, quantize_weight, round_to_int8

TensorKind = Literal["weights", "activations"]
TENSOR_KINDS: tuple[TensorKind, ...] = ("weights", "activations")


@dataclass(frozen=True)
class QdqModel:
    """A Q/DQ model.

    Attributes:
        model: The model; its weights are quantized when it is saved.
        plan: Which nodes run in INT8, and why. Nodes without a range in the table do not.
    """

    model: ir.Model
    plan: QuantizationPlan

    @property
    def nodes(self) -> tuple[NodePlan, ...]:
        """The decisions for all candidate nodes, in graph order."""
        return self.plan.nodes

    @property
    def num_int8_nodes(self) -> int:
        """How many nodes run in INT8."""
        return sum(node.is_int8 for node in self.nodes)

    @property
    def num_weight_only_nodes(self) -> int:
        """How many nodes have only their weight in INT8."""
        return sum(node.weight_only for node in self.nodes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the model as an ONNX file.

        Args:
            path: The file to write. If the weights exceed 1.9 GB, they go to `path` + ".data".

        Raises:
            OutputError: The file cannot be written; a model that was there before is unchanged.
        """
        save_model(self.model, Path(path))


def insert_qdq(
    model: Model,
    table: CalibrationTable,
    nodes_to_exclude: Collection[str] = (),
    attention: bool = False,
    tensor_kinds: Collection[TensorKind] = TENSOR_KINDS,
    weight_only: Collection[str] = (),
    stored_weights: StoredWeights | None = None,
) -> QdqModel:
    """Convert a float model to an explicitly quantized Q/DQ model: int8, symmetric, zero point 0.

    An activation gets one Q/DQ pair with a per-tensor scale; weights are stored as int8 with per-channel scales.

    Args:
        model: The float model.
        table: The dynamic ranges of its activations.
        nodes_to_exclude: Nodes to exclude from quantization, by their first output; see `select_nodes` for patterns.
        attention: Also quantize the MatMuls of attention.
        tensor_kinds: Quantize weights or activations only, for analysis.
        weight_only: Nodes of which only the weight is quantized, by their first output; they need no range.
        stored_weights: Weights that were rounded already; others are rounded to the nearest integer.

    Returns:
        The Q/DQ model; `model` is unchanged.

    Raises:
        TableError: The table has no range for any of the tensors that need one.
        ModelError: The model has no quantizable node, or a weight has NaN or infinite values.
        UsageError: `nodes_to_exclude` or `weight_only` has a name that is not the first output of a quantizable node.
    """
    result = model.to_ir()
    plan = plan_qdq(model, result.graph, table, nodes_to_exclude, attention, weight_only)
    inputs = [read for read in plan.inputs if ("activations" if read.axis is None else "weights") in tensor_kinds]
    insert_pairs(result.graph, model.opset, plan, table, inputs, stored_weights)
    return QdqModel(result, plan)


def plan_qdq(
    model: Model,
    graph: ir.Graph,
    table: CalibrationTable,
    nodes_to_exclude: Collection[str] = (),
    attention: bool = False,
    weight_only: Collection[str] = (),
) -> QuantizationPlan:
    """Plan the quantization of `graph`, a copy of that of `model`, with the ranges of `table`; see `insert_qdq`."""
    plan = plan_quantization(graph, partial(_missing_range, table), nodes_to_exclude, attention, weight_only)
    if not plan.nodes:
        raise ModelError(f"{model.path}: no node can run in INT8: it has no Conv, ConvTranspose, Gemm or MatMul")
    if not plan.activations and not nodes_to_exclude and not weight_only:
        reasons = "; ".join(sorted({node.reason for node in plan.nodes}))
        raise TableError(f"{model.path}: no node can run in INT8: {reasons}. Does the table belong to this model?")
    return plan


def insert_pairs(
    graph: ir.Graph,
    opset: int,
    plan: QuantizationPlan,
    table: CalibrationTable,
    inputs: Collection[QuantizedInput],
    stored_weights: StoredWeights | None = None,
) -> None:
    """Insert Q/DQ at `inputs`, some or all of the inputs of `plan`, in place; see `insert_qdq`."""
    nodes = {node.outputs[0].name: node for node in graph}
    inserter = QdqInserter(graph, opset, plan, table, stored_weights)
    replaced_weights = []
    for read in inputs:
        node = nodes[read.node_output]
        value = node.inputs[read.index]
        assert value is not None
        node.replace_input_with(read.index, inserter.quantize_input(read, value))
        if read.axis is not None:
            replaced_weights.append(value)
    for weight in dict.fromkeys(replaced_weights):
        remove_unused(graph, weight)
    graph.sort()


def remove_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a constant that nothing reads any more, with the nodes that compute it."""
    if value.uses() or value.is_graph_output():
        return
    node = value.producer()
    if node is None:
        graph.initializers.pop(str(value.name), None)
        return
    operands = [operand for operand in node.inputs if operand is not None]
    graph.remove(node, safe=True)
    for operand in operands:
        remove_unused(graph, operand)


def _missing_range(table: CalibrationTable, tensor: str) -> str | None:
    """Why `tensor` has no range; None if it has one."""
    if tensor in table.amax:
        return None
    if tensor in table.tensors_without_range:
        return f"{tensor!r} has no usable scale (always zero, or not finite)"
    return f"{tensor!r} has no range in the table"


class QdqInserter:
    """Adds the Q/DQ nodes of a plan to a graph, once per tensor."""

    def __init__(
        self,
        graph: ir.Graph,
        opset: int,
        plan: QuantizationPlan,
        table: CalibrationTable,
        stored_weights: StoredWeights | None = None,
    ) -> None:
        self._graph = graph
        self._opset = opset
        self._plan = plan
        self._table = table
        self._stored_weights = stored_weights or {}
        self._editor = GraphEditor(graph)
        self._dequantized: dict[tuple[str, int | None], ir.Value] = {}

    def quantize_input(self, read: QuantizedInput, value: ir.Value) -> ir.Value:
        """Return the dequantized tensor that the node of `read` has to read instead of `value`."""
        key = (read.tensor, read.axis)
        if key not in self._dequantized:
            if read.axis is None:
                scale = self._table.scale(self._plan.range_source(read.tensor))
                self._dequantized[key] = self._quantize_activation(value, scale)
            else:
                self._dequantized[key] = self._quantize_weight(value, read.axis)
        return self._dequantized[key]

    def _quantize_activation(self, value: ir.Value, scale: np.float32) -> ir.Value:
        """Add Q and DQ; return the dequantized tensor."""
        scales = self._editor.constant(f"{value.name}.qdq.scale", ir.tensor(np.array(scale, np.float32)))
        zeros = self._editor.constant(f"{value.name}.qdq.zero_point", ir.tensor(np.array(0, np.int8)))
        quantized = self._node("QuantizeLinear", value, scales, zeros, f"{value.name}.quantized")
        return self._node("DequantizeLinear", quantized, scales, zeros, f"{value.name}.dequantized", like=value)

    def _quantize_weight(self, value: ir.Value, axis: int) -> ir.Value:
        """Add an int8 initializer and its DQ; return the dequantized weight."""
        weight = value.const_value
        rounded: ir.TensorProtocol
        if stored := self._stored_weights.get((str(value.name), axis)):
            per_channel, rounded = stored.scales, stored.tensor()
        elif weight is not None:
            per_channel = read_once(weight, lambda array: channel_scales(array, axis, str(value.name)))
            rounded = lazy_map(
                weight, partial(round_to_int8, scales=per_channel, axis=axis), ir.DataType.INT8, str(value.name)
            )
        else:  # computed by a Transpose or the like, which is removed before the model is saved
            eager = quantize_weight(constant_value(value, self._opset), axis, str(value.name))
            per_channel, rounded = eager.scales, ir.tensor(eager.values)
        values = self._editor.constant(f"{value.name}.int8", rounded)
        scales = self._editor.constant(f"{value.name}.int8.scale", ir.tensor(per_channel))
        zeros = self._editor.constant(f"{value.name}.int8.zero_point", ir.tensor(np.zeros(per_channel.shape, np.int8)))
        output = f"{value.name}.dequantized"
        return self._node("DequantizeLinear", values, scales, zeros, output, like=value, axis=axis)

    def _node(
        self,
        op_type: str,
        data: ir.Value,
        scales: ir.Value,
        zeros: ir.Value,
        output: str,
        like: ir.Value | None = None,
        axis: int | None = None,
    ) -> ir.Value:
        """Append a Q or DQ node; its output has the shape of `data`, and type int8 or that of `like`."""
        output = self._editor.unique_name(output)
        node = ir.node(
            op_type,
            [data, scales, zeros],
            attributes={} if axis is None else {"axis": axis},
            outputs=[ir.val(output, dtype=like.dtype if like else ir.DataType.INT8, shape=data.shape)],
            name=output,
        )
        self._graph.append(node)  # the caller sorts the graph at the end
        return node.outputs[0]
