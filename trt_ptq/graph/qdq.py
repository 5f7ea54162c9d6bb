"""From a float model and a calibration table to an explicit Q/DQ model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.batches import Array
from trt_ptq.calibrators.errors import TableError
from trt_ptq.calibrators.table.table import CalibrationTable
from trt_ptq.graph.model import Model
from trt_ptq.graph.placement import NodePlan, QuantizationPlan, plan_quantization
from trt_ptq.graph.weights import quantize_weight


@dataclass(frozen=True)
class QdqModel:
    """A Q/DQ model and what became of the plan: nodes whose range the table lacks have turned to float."""

    model: ir.Model
    nodes: tuple[NodePlan, ...]

    @property
    def in_int8(self) -> int:
        """How many nodes run in INT8."""
        return sum(node.int8 for node in self.nodes)


def insert_qdq(model: Model, table: CalibrationTable) -> QdqModel:
    """Insert QuantizeLinear and DequantizeLinear by the plan: int8, symmetric, zero point 0.

    Activations get one pair a tensor with a per-tensor scale; weights are stored as int8 with per-channel scales.

    Raises:
        TableError: the table has a range for none of the tensors that the plan needs.
        ModelError: NaN or infinity in a weight.
    """
    result = model.to_ir()
    plan = _with_ranges(plan_quantization(result.graph), table)
    if plan.nodes and not plan.activations:
        raise TableError(
            f"{model.path}: no node can run in INT8: "
            + "; ".join(sorted({node.reason for node in plan.nodes}))
            + ". Is the table of this model?"
        )
    nodes = {node.outputs[0].name: node for node in result.graph}
    pairs: dict[tuple[str, int | None], ir.Value] = {}
    for one in plan.inputs:
        node = nodes[one.node]
        value = node.inputs[one.index]
        assert value is not None
        key = (one.tensor, one.axis)
        if key not in pairs:
            if one.axis is None:
                pairs[key] = _activation_pair(result.graph, value, table.scale(one.tensor))
            else:
                pairs[key] = _int8_weight(result.graph, value, one.axis)
        node.replace_input_with(one.index, pairs[key])
        if one.axis is not None and not value.uses() and not value.is_graph_output():
            del result.graph.initializers[one.tensor]
    result.graph.sort()
    return QdqModel(result, plan.nodes)


def _with_ranges(plan: QuantizationPlan, table: CalibrationTable) -> QuantizationPlan:
    """The plan without the nodes for which `table` has no range."""
    lacking: dict[str, str] = {}
    for one in plan.inputs:
        if one.axis is None and one.tensor not in table.amax:
            no_scale = "has no usable scale (always zero, or not finite)"
            lacking[one.node] = (
                f"{one.tensor!r} {no_scale if one.tensor in table.unscaled else 'has no range in the table'}"
            )
    return QuantizationPlan(
        nodes=tuple(
            replace(node, int8=False, reason=lacking[node.node]) if node.node in lacking else node
            for node in plan.nodes
        ),
        inputs=tuple(one for one in plan.inputs if one.node not in lacking),
    )


def _activation_pair(graph: ir.Graph, value: ir.Value, scale: np.float32) -> ir.Value:
    """Q and DQ of an activation; returns the dequantized tensor."""
    scales = _initializer(graph, f"{value.name}.qdq.scale", np.array(scale, np.float32))
    zeros = _initializer(graph, f"{value.name}.qdq.zero_point", np.array(0, np.int8))
    quantized = _node(graph, "QuantizeLinear", value, scales, zeros, f"{value.name}.quantized")
    return _node(graph, "DequantizeLinear", quantized, scales, zeros, f"{value.name}.dequantized", like=value)


def _int8_weight(graph: ir.Graph, value: ir.Value, axis: int) -> ir.Value:
    """int8 initializer with a DQ behind it; returns the dequantized weight."""
    assert value.const_value is not None
    name = f"{value.name}.axis{axis}" if len(value.uses()) > 1 else str(value.name)
    weight = quantize_weight(value.const_value.numpy(), axis, str(value.name))
    values = _initializer(graph, f"{name}.int8", weight.values)
    scales = _initializer(graph, f"{name}.int8.scale", weight.scales)
    zeros = _initializer(graph, f"{name}.int8.zero_point", np.zeros(weight.scales.shape, np.int8))
    return _node(graph, "DequantizeLinear", values, scales, zeros, f"{name}.dequantized", like=value, axis=axis)


def _initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _node(
    graph: ir.Graph,
    op_type: str,
    data: ir.Value,
    scales: ir.Value,
    zeros: ir.Value,
    output: str,
    like: ir.Value | None = None,
    axis: int | None = None,
) -> ir.Value:
    """A Q or DQ node; its output has the shape of `data`, and int8 or the type of `like`."""
    node = ir.node(
        op_type,
        [data, scales, zeros],
        attributes={} if axis is None else {"axis": axis},
        outputs=[ir.val(output, dtype=like.dtype if like else ir.DataType.INT8, shape=data.shape)],
        name=output,
    )
    graph.append(node)  # in any place: the graph is sorted at the end
    return node.outputs[0]
