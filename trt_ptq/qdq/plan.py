"""Which nodes run in INT8, and why: the rules of TensorRT's explicit quantization.

- All inputs of a weighted op (Conv, ConvTranspose, Gemm, MatMul with a constant) are quantized, its output is not:
  so nothing stands between a Conv and its BatchNorm or activation, and a range is that after the activation.
- At a residual Add the shortcut is quantized, so that the convolution and the Add become one kernel.
- Concat, pooling and Resize hand INT8 on where all that reads them runs in it; see carriers.py.
- The rows of an embedding are stored in INT8. Attention's MatMuls run in it by choice; see attention.py.
- Everything else (LayerNorm, Softmax, GELU, masks, computations on shapes) stays float. Custom ops and the bodies of
  If, Loop and Scan are left alone, and named.
- Left float for lack of gain: fewer than 16 channels, K or N under 16, a single row or position.

Source: NVIDIA, "Working with Quantized Types", TensorRT developer guide.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from trt_ptq.analysis.dataflow import DataFlow, inner_nodes, name_of
from trt_ptq.errors import UsageError
from trt_ptq.qdq.attention import why_float_attention
from trt_ptq.qdq.propagation import QdqPropagation, is_passthrough
from trt_ptq.qdq.residual import match_residual
from trt_ptq.qdq.weighted import WEIGHTED_OPS, weight_axis, why_float, why_float_embedding

BY_CHOICE = "kept in float by choice"
_ONNX_DOMAINS = ("", "ai.onnx.ml")


@dataclass(frozen=True)
class QuantizedInput:
    """Input `index` of the node whose first output is `node`; `axis` is None for an activation, and the channel
    axis for a weight."""

    node_output: str
    index: int
    tensor: str
    axis: int | None = None


@dataclass(frozen=True)
class NodePlan:
    """One node that could run in INT8, by the name of its first output: whether it does, and why."""

    output: str
    op_type: str
    is_int8: bool
    reason: str


@dataclass(frozen=True)
class QuantizationPlan:
    """Decisions for all candidate nodes in graph order, and the inputs that get Q/DQ; the rest stays float.

    `range_sources` maps an activation to the one whose range it takes. `unsupported` are nodes that cannot be decided
    on: custom ops, and weighted nodes in bodies.
    """

    nodes: tuple[NodePlan, ...]
    inputs: tuple[QuantizedInput, ...]
    range_sources: Mapping[str, str] = field(default_factory=dict)
    unsupported: tuple[NodePlan, ...] = ()

    @property
    def activations(self) -> tuple[str, ...]:
        """Tensors that need a range, in graph order, each once."""
        return tuple(dict.fromkeys(self.range_source(one.tensor) for one in self.inputs if one.axis is None))

    def range_source(self, tensor: str) -> str:
        """The tensor whose range `tensor` takes: itself, if no other."""
        return self.range_sources.get(tensor, tensor)


WhyWithout = Callable[[str], str | None]


def _all_have_ranges(_tensor: str) -> None:
    return None


def plan_quantization(
    graph: ir.Graph,
    without_range: WhyWithout = _all_have_ranges,
    nodes_to_exclude: Collection[str] = (),
    attention: bool = False,
) -> QuantizationPlan:
    """Decide for every node of the main graph that INT8 could be for.

    `without_range` says why an activation has no range, so that what reads it stays float; None where it has one.
    Nodes named in `nodes_to_exclude` (as in `NodePlan.node`) stay float by choice. Which nodes are candidates, and
    their order, depends on neither. `attention`: also the MatMuls of attention, over sequences of up to 512.

    Raises:
        UsageError: a name in `nodes_to_exclude` is of no candidate.
    """
    planner = _Planner(graph, without_range, nodes_to_exclude)
    for node in graph:
        if node.domain == "" and node.op_type in WEIGHTED_OPS:
            planner.weighted(node, attention)
        elif node.domain == "" and node.op_type == "Gather":
            planner.embedding(node)
    planner.residuals()
    planner.propagation()
    plan = planner.plan()
    _check_known(nodes_to_exclude, [one.output for one in plan.nodes])
    return plan


def int8_fraction(plan: QuantizationPlan, macs: Mapping[str, int]) -> float:
    """The share, 0 to 1, of all multiply-accumulates in `macs` that the plan's INT8 nodes do; 0 if there are none."""
    total = sum(macs.values())
    return sum(macs.get(node.output, 0) for node in plan.nodes if node.is_int8) / total if total else 0.0


class _Planner:
    """Collects decisions; a later kind of node depends on those before it."""

    def __init__(self, graph: ir.Graph, without_range: WhyWithout, nodes_to_exclude: Collection[str]) -> None:
        self._graph = graph
        self._flow = DataFlow.of(graph)
        self._order = {node: index for index, node in enumerate(graph)}
        self._without_range = without_range
        self._nodes_to_exclude = nodes_to_exclude
        self._decided: dict[ir.Node, NodePlan] = {}
        self._inputs: dict[ir.Node, list[tuple[int, int | None]]] = {}
        self._possible: set[str] = set()  # weighted nodes that only a choice or a missing range keeps in float
        self._range_sources: dict[str, str] = {}

    def weighted(self, node: ir.Node, attention: bool) -> None:
        if all(name_of(value) in self._flow.activations for value in node.inputs[:2]):
            reason = why_float_attention(node, attention)
            self._decide(node, reason, "attention, by choice", [(0, None), (1, None)])
            return
        reason = why_float(node, self._flow)
        if reason is None:
            self._possible.add(name_of(node.outputs[0]))
        self._decide(node, reason, "weighted op", [(0, None), (1, weight_axis(node))])

    def embedding(self, node: ir.Node) -> None:
        reason = why_float_embedding(node, self._flow)
        if reason is None or name_of(node.outputs[0]) in self._flow.activations:
            self._decide(node, reason, "embedding: its rows are stored in INT8", [(0, 0)])

    def residuals(self) -> None:
        in_int8 = {one.output for one in self._decided.values() if one.is_int8}
        for node in self._graph:
            found = match_residual(node, in_int8, self._flow, self._order) or match_residual(
                node, self._possible, self._flow, self._order
            )
            if found is not None:
                kept = None if found.convolution in in_int8 else f"its convolution {found.convolution!r} stays in float"
                self._decide(node, kept, "residual Add: joins its convolution's kernel", [(found.shortcut, None)])

    def propagation(self) -> None:
        read = [(node, index) for node, inputs in self._inputs.items() for index, _ in inputs]
        propagation = QdqPropagation(self._flow, read, self._without_range)
        for node in reversed(self._graph):
            if is_passthrough(node, self._flow):
                reason = propagation.why_float(node)
                if self._decide(node, reason, "hands INT8 on to what reads it", []):
                    self._inputs[node] = [(index, None) for index in propagation.propagate(node)]
        self._range_sources = {name: propagation.range_source(name) for name in propagation.range_sources}

    def plan(self) -> QuantizationPlan:
        ordered = sorted(self._decided, key=self._order.__getitem__)
        inputs = [
            QuantizedInput(name_of(node.outputs[0]), index, name_of(node.inputs[index]), axis)
            for node in ordered
            for index, axis in self._inputs.get(node, ())
        ]
        nodes = tuple(self._decided[node] for node in ordered)
        return QuantizationPlan(nodes, tuple(inputs), self._range_sources, tuple(_unsupported(self._graph)))

    def _decide(
        self, node: ir.Node, why_float: str | None, why_int8: str, inputs: list[tuple[int, int | None]]
    ) -> bool:
        """Note what becomes of `node`, whose `inputs` (index, axis) get Q/DQ in INT8; returns whether that is so."""
        name = name_of(node.outputs[0])
        lacking = (self._without_range(name_of(node.inputs[index])) for index, axis in inputs if axis is None)
        reason = why_float or (BY_CHOICE if name in self._nodes_to_exclude else next(filter(None, lacking), None))
        self._decided[node] = NodePlan(name, node.op_type, reason is None, reason or why_int8)
        if reason is None:
            self._inputs[node] = inputs
        return reason is None


def _unsupported(graph: ir.Graph) -> list[NodePlan]:
    """Custom ops, and weighted nodes in bodies."""
    left = []
    for node in graph:
        name = name_of(node.outputs[0])
        if node.domain not in _ONNX_DOMAINS:
            why = f"custom op {node.domain}::{node.op_type}: not known here"
            left.append(NodePlan(name, node.op_type, False, why))
        left += [
            NodePlan(name_of(inner.outputs[0]), inner.op_type, False, f"in a body of {node.op_type} {name!r}")
            for inner in inner_nodes(node)
            if inner.op_type in WEIGHTED_OPS and inner.domain == ""
        ]
    return left


def _check_known(nodes_to_exclude: Collection[str], candidates: list[str]) -> None:
    for name in nodes_to_exclude:
        if name not in candidates:
            near = difflib.get_close_matches(name, candidates, 3)
            raise UsageError(
                f"{name!r} cannot be kept in float: no node that could run in INT8 has it as its first output"
                + (f" (near: {', '.join(map(repr, near))})" if near else "")
            )
