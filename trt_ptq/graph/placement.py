"""Which nodes run in INT8, and why: the rules of TensorRT's explicit quantization.

- All inputs of a weighted op (Conv, ConvTranspose, Gemm, MatMul with a constant) are quantized, its output is not:
  so nothing stands between a Conv and its BatchNorm or activation, and a range is that after the activation.
- At a residual Add the shortcut is quantized, so that the convolution and the Add become one kernel.
- Everything else (LayerNorm, Softmax, masks, MatMul of two activations, computations on shapes) stays float.
- Left float for lack of gain: fewer than 16 channels, K or N under 16, convolutions over a single position.

Source: NVIDIA, "Working with Quantized Types", TensorRT developer guide.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.graph.dataflow import activations

MIN_CHANNELS = 16
BY_CHOICE = "kept in float by choice"
_FUSED_INTO_CONV = {"BatchNormalization"}


@dataclass(frozen=True)
class QuantizedInput:
    """Input `index` of the node whose first output is `node`; `axis` is None for an activation, and the channel
    axis for a weight."""

    node: str
    index: int
    tensor: str
    axis: int | None = None


@dataclass(frozen=True)
class NodePlan:
    """One node that could run in INT8, by the name of its first output: whether it does, and why."""

    node: str
    op_type: str
    int8: bool
    reason: str


@dataclass(frozen=True)
class QuantizationPlan:
    """Decisions for all candidate nodes in graph order, and the inputs that get Q/DQ; the rest stays float."""

    nodes: tuple[NodePlan, ...]
    inputs: tuple[QuantizedInput, ...]

    @property
    def activations(self) -> tuple[str, ...]:
        """Tensors that need a range, in graph order, each once."""
        return tuple(dict.fromkeys(one.tensor for one in self.inputs if one.axis is None))


WhyWithout = Callable[[str], str | None]


def _all_have_ranges(_tensor: str) -> None:
    return None


def plan_quantization(
    graph: ir.Graph, without_range: WhyWithout = _all_have_ranges, keep_float: Collection[str] = ()
) -> QuantizationPlan:
    """Decide for every weighted node and residual Add of the main graph.

    `without_range` says why an activation has no range, so that what reads it stays float; None where it has one.
    Nodes named in `keep_float` (as in `NodePlan.node`) stay float by choice. Which nodes are candidates, and their
    order, depends on neither.

    Raises:
        UsageError: a name in `keep_float` is of no candidate.
    """
    carrying = activations(graph)
    nodes: list[NodePlan] = []
    inputs: list[QuantizedInput] = []

    def decide(node: ir.Node, reason_float: str | None, reason_int8: str) -> bool:
        name = _name(node.outputs[0])
        reason = reason_float or (BY_CHOICE if name in keep_float else None)
        nodes.append(NodePlan(name, node.op_type, reason is None, reason or reason_int8))
        return reason is None

    candidates = [node for node in graph if node.op_type in _WEIGHT_AXES and node.domain == ""]
    can_be_int8 = set()
    for node in candidates:
        name, reason = _name(node.outputs[0]), _why_float(node, carrying)
        if reason is None:
            can_be_int8.add(name)
        if decide(node, reason or without_range(_name(node.inputs[0])), "weighted op"):
            inputs.append(QuantizedInput(name, 0, _name(node.inputs[0])))
            inputs.append(QuantizedInput(name, 1, _name(node.inputs[1]), _weight_axis(node)))
    in_int8 = {one.node for one in nodes if one.int8}
    for node in graph:
        found = _shortcut(node, in_int8, carrying) or _shortcut(node, can_be_int8, carrying)
        if found is None:
            continue
        shortcut, convolution = found
        tensor = _name(node.inputs[shortcut])
        reason = None if convolution in in_int8 else f"its convolution {convolution!r} stays in float"
        if decide(node, reason or without_range(tensor), "residual Add: joins its convolution's kernel"):
            inputs.append(QuantizedInput(_name(node.outputs[0]), shortcut, tensor))
    _refuse_unknown(keep_float, [one.node for one in nodes])
    return QuantizationPlan(tuple(nodes), tuple(inputs))


def _refuse_unknown(keep_float: Collection[str], candidates: list[str]) -> None:
    for name in keep_float:
        if name not in candidates:
            near = difflib.get_close_matches(name, candidates, 3)
            raise UsageError(
                f"{name!r} cannot be kept in float: no node that could run in INT8 has it as its first output"
                + (f" (near: {', '.join(map(repr, near))})" if near else "")
            )


_WEIGHT_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}


def _weight_axis(node: ir.Node) -> int:
    """The axis of the output channels in the node's weight."""
    if node.op_type == "Gemm" and node.attributes.get_int("transB"):
        return 0
    return _WEIGHT_AXES[node.op_type]


def _why_float(node: ir.Node, carrying: set[str]) -> str | None:
    """Why a weighted node stays float; None when it can run in INT8."""
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None or _name(data) not in carrying:
        return "its data is not a float32 activation"
    if weight.const_value is None:
        return "both inputs are activations" if _name(weight) in carrying else "its weight is computed in the graph"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, not float32"
    shape = tuple(weight.const_value.shape.numpy())
    if node.op_type in ("Gemm", "MatMul"):
        if len(shape) != 2:
            return f"its weight has {len(shape)} axes, not 2"
        if min(shape) < MIN_CHANNELS:
            return f"K or N under {MIN_CHANNELS}: no gain from INT8"
        return None
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        channels_in, channels_out = shape[1] * groups, shape[0]
    else:
        channels_in, channels_out = shape[0], shape[1] * groups
    if min(channels_in, channels_out) < MIN_CHANNELS:
        return f"under {MIN_CHANNELS} channels: no gain from INT8"
    positions = node.outputs[0].shape[2:] if node.outputs[0].shape else ()
    if positions and all(one == 1 for one in positions):
        return "one position a sample (matrix-vector): no gain from INT8"
    return None


def _shortcut(node: ir.Node, can_be_int8: set[str], carrying: set[str]) -> tuple[int, str] | None:
    """Which input of a residual Add is the shortcut, and the convolution behind the other; None if it is no such Add.

    The other input comes straight from a convolution that INT8 is for, and that nothing else reads. Where both do (a
    projection shortcut), the later convolution takes the Add into its kernel.
    """
    if node.op_type != "Add" or node.domain != "":
        return None
    if any(value is None or _name(value) not in carrying for value in node.inputs) or _broadcasts(node):
        return None
    sources = [_convolution(value, can_be_int8) for value in node.inputs]
    order = [-1 if one is None else _position(one) for one in sources]
    if max(order) < 0 or node.inputs[0] is node.inputs[1]:
        return None
    shortcut = 0 if order[1] > order[0] else 1
    convolution = sources[1 - shortcut]
    assert convolution is not None
    return shortcut, _name(convolution.outputs[0])


def _broadcasts(node: ir.Node) -> bool:
    """Whether an Add is known to stretch one of its inputs, as no residual does."""
    first, second = (None if value is None else value.shape for value in node.inputs)
    if first is None or second is None:
        return False
    return len(first) != len(second) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(first, second, strict=True)
    )


def _convolution(value: ir.Value | None, can_be_int8: set[str]) -> ir.Node | None:
    """The convolution behind `value`, when it and what fuses into it have no other reader."""
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Conv":
            return node if _name(node.outputs[0]) in can_be_int8 else None
        if node.op_type not in _FUSED_INTO_CONV:
            return None
        value = node.inputs[0]
    return None


def _position(node: ir.Node) -> int:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return list(graph).index(node)


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else None) or ""
