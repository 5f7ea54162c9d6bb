"""From a float model and a calibration table to an explicit Q/DQ model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
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
from trt_ptq.qdq.plan import NodePlan, QuantizationPlan, QuantizedInput, plan_quantization
from trt_ptq.qdq.weights import channel_scales, quantize_weight, round_to_int8

TensorKind = Literal["weights", "activations"]
TENSOR_KINDS: tuple[TensorKind, ...] = ("weights", "activations")


@dataclass(frozen=True)
class QdqModel:
    """A Q/DQ model and what became of the plan: nodes whose range the table lacks have turned to float."""

    model: ir.Model
    plan: QuantizationPlan

    @property
    def nodes(self) -> tuple[NodePlan, ...]:
        """All nodes that could run in INT8, and whether they do."""
        return self.plan.nodes

    @property
    def num_int8_nodes(self) -> int:
        """How many nodes run in INT8."""
        return sum(node.is_int8 for node in self.nodes)


def insert_qdq(
    model: Model,
    table: CalibrationTable,
    nodes_to_exclude: Collection[str] = (),
    attention: bool = False,
    tensor_kinds: Collection[TensorKind] = TENSOR_KINDS,
) -> QdqModel:
    """Insert QuantizeLinear and DequantizeLinear by the plan: int8, symmetric, zero point 0.

    Activations get one pair a tensor with a per-tensor scale; weights are stored as int8 with per-channel scales.
    Nodes named in `nodes_to_exclude` (by their first output) stay float, even all of them; with `attention` its MatMuls
    are quantized too. `tensor_kinds` restricts quantization to weights or activations, for analysis.

    Raises:
        TableError: the table has a range for none of the tensors that the plan needs.
        ModelError: NaN or infinity in a weight, or no node that INT8 is for.
        UsageError: a name in `nodes_to_exclude` is of no node that could run in INT8.
    """
    result = model.to_ir()
    plan = plan_qdq(model, result.graph, table, nodes_to_exclude, attention)
    chosen = [one for one in plan.inputs if ("activations" if one.axis is None else "weights") in tensor_kinds]
    insert_pairs(result.graph, model.opset, plan, table, chosen)
    return QdqModel(result, plan)


def plan_qdq(
    model: Model,
    graph: ir.Graph,
    table: CalibrationTable,
    nodes_to_exclude: Collection[str] = (),
    attention: bool = False,
) -> QuantizationPlan:
    """The plan for `graph`, a copy of that of `model`, with the ranges that `table` has; see `insert_qdq`."""
    plan = plan_quantization(graph, partial(_why_without, table), nodes_to_exclude, attention)
    if not plan.nodes:
        raise ModelError(f"{model.path}: no node can run in INT8: it has no Conv, ConvTranspose, Gemm or MatMul")
    if not plan.activations and not nodes_to_exclude:
        raise TableError(
            f"{model.path}: no node can run in INT8: "
            + "; ".join(sorted({node.reason for node in plan.nodes}))
            + ". Is the table of this model?"
        )
    return plan


def insert_pairs(
    graph: ir.Graph,
    opset: int,
    plan: QuantizationPlan,
    table: CalibrationTable,
    inputs: Collection[QuantizedInput],
) -> None:
    """Give those of the plan's `inputs` that are named their Q/DQ, in place; see `insert_qdq`."""
    nodes = {node.outputs[0].name: node for node in graph}
    inserter = Inserter(graph, opset, plan, table)
    replaced = []
    for one in inputs:
        node = nodes[one.node_output]
        value = node.inputs[one.index]
        assert value is not None
        node.replace_input_with(one.index, inserter.quantize_input(one, value))
        if one.axis is not None:
            replaced.append(value)
    for value in dict.fromkeys(replaced):
        remove_unused(graph, value)
    graph.sort()


def remove_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a float weight that nothing reads any more, with the views that led to it."""
    if value.uses() or value.is_graph_output():
        return
    node = value.producer()
    if node is None:
        graph.initializers.pop(str(value.name), None)
        return
    inputs = [one for one in node.inputs if one is not None]
    graph.remove(node, safe=True)
    for one in inputs:
        remove_unused(graph, one)


def _why_without(table: CalibrationTable, tensor: str) -> str | None:
    """Why `tensor` has no range; None when it has one."""
    if tensor in table.amax:
        return None
    if tensor in table.tensors_without_range:
        return f"{tensor!r} has no usable scale (always zero, or not finite)"
    return f"{tensor!r} has no range in the table"


class Inserter:
    """Adds what the inputs of a plan read in INT8 to a graph, once for each tensor."""

    def __init__(self, graph: ir.Graph, opset: int, plan: QuantizationPlan, table: CalibrationTable) -> None:
        self._graph = graph
        self._opset = opset
        self._plan = plan
        self._table = table
        self._editor = GraphEditor(graph)
        self._made: dict[tuple[str, int | None], ir.Value] = {}

    def quantize_input(self, one: QuantizedInput, value: ir.Value) -> ir.Value:
        """What is read at `one` instead of `value`."""
        key = (one.tensor, one.axis)
        if key not in self._made:
            if one.axis is None:
                self._made[key] = self._activation(value, self._table.scale(self._plan.range_source(one.tensor)))
            else:
                self._made[key] = self._weight(value, one.axis)
        return self._made[key]

    def _activation(self, value: ir.Value, scale: np.float32) -> ir.Value:
        """Q and DQ of an activation; returns the dequantized tensor."""
        scales = self._editor.constant(f"{value.name}.qdq.scale", ir.tensor(np.array(scale, np.float32)))
        zeros = self._editor.constant(f"{value.name}.qdq.zero_point", ir.tensor(np.array(0, np.int8)))
        quantized = self._node("QuantizeLinear", value, scales, zeros, f"{value.name}.quantized")
        return self._node("DequantizeLinear", quantized, scales, zeros, f"{value.name}.dequantized", like=value)

    def _weight(self, value: ir.Value, axis: int) -> ir.Value:
        """int8 initializer with a DQ behind it; returns the dequantized weight."""
        weight = value.const_value
        if weight is not None:
            per_channel = read_once(weight, lambda array: channel_scales(array, axis, str(value.name)))
            rounded: ir.TensorProtocol = lazy_map(
                weight, partial(round_to_int8, scales=per_channel, axis=axis), ir.DataType.INT8, str(value.name)
            )
        else:  # behind views, which are gone by the time it is written
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
        """A Q or DQ node; its output has the shape of `data`, and int8 or the type of `like`."""
        output = self._editor.unique_name(output)
        node = ir.node(
            op_type,
            [data, scales, zeros],
            attributes={} if axis is None else {"axis": axis},
            outputs=[ir.val(output, dtype=like.dtype if like else ir.DataType.INT8, shape=data.shape)],
            name=output,
        )
        self._graph.append(node)  # in any place: the graph is sorted at the end
        return node.outputs[0]
