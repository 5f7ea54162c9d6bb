"""Which nodes run in INT8, and why: the rules of TensorRT's explicit quantization.

- All inputs of a weighted operator (Conv, ConvTranspose, Gemm, MatMul with a constant) are quantized, its output is
  not. A Conv is therefore fused with its BatchNorm or activation, and its range is that of the activation's output.
- At a residual Add the shortcut is quantized, so that TensorRT fuses the Add into the convolution.
- Concat, pooling and Resize propagate quantization if all of their readers run in INT8; see propagation.py.
- A weight-only node has its weight in INT8 and its activations in float: TensorRT dequantizes the weight for a float
  kernel, or in it. It needs no ranges.
- The rows of an embedding are stored in INT8. The MatMuls of attention run in INT8 on request; see attention.py.
- Everything else (LayerNorm, Softmax, GELU, masks, shape computations) is not quantized. Custom ops and the bodies of
  If, Loop and Scan are not supported; they are reported and left unchanged.
- Excluded for lack of speedup: fewer than 16 channels, K or N less than 16, a single row or position.

Source: NVIDIA, "Working with Quantized Types", TensorRT developer guide.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from trt_ptq.analysis.dataflow import DataFlow, inner_nodes, name_of
from trt_ptq.analysis.op_types import WEIGHTED_OPS
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.domains import is_custom, is_runnable
from trt_ptq.qdq.attention import attention_exclusion_reason
from trt_ptq.qdq.propagation import QdqPropagation, is_passthrough
from trt_ptq.qdq.residual import match_residual
from trt_ptq.qdq.weighted import embedding_exclusion_reason, weight_axis, weighted_exclusion_reason

MissingRange = Callable[[str], str | None]


@dataclass(frozen=True)
class QuantizedInput:
    """A node input that gets Q/DQ.

    Attributes:
        node_output: The node, by its first output.
        index: The index of the input.
        tensor: The tensor that the node reads there.
        axis: The channel axis of a weight; None for an activation.
    """

    node_output: str
    index: int
    tensor: str
    axis: int | None = None


@dataclass(frozen=True)
class NodePlan:
    """The decision on one candidate node.

    Attributes:
        output: The first output of the node, which identifies it.
        op_type: The operator.
        is_int8: Whether the node runs in INT8.
        reason: Why, or why not.
        weight_only: Whether only its weight is INT8; `is_int8` is False then.
    """

    output: str
    op_type: str
    is_int8: bool
    reason: str
    weight_only: bool = False


@dataclass(frozen=True)
class QuantizationPlan:
    """The decisions for all candidate nodes, and the inputs that get Q/DQ.

    Attributes:
        nodes: The candidate nodes in graph order.
        inputs: The node inputs that get Q/DQ.
        range_sources: Maps an activation to the tensor whose range it uses, if not its own.
        unsupported: Custom ops, and weighted operators in bodies of If, Loop and Scan.
    """

    nodes: tuple[NodePlan, ...]
    inputs: tuple[QuantizedInput, ...]
    range_sources: Mapping[str, str] = field(default_factory=dict)
    unsupported: tuple[NodePlan, ...] = ()

    @property
    def activations(self) -> tuple[str, ...]:
        """The tensors that need a range, in graph order, without duplicates."""
        return tuple(dict.fromkeys(self.range_source(read.tensor) for read in self.inputs if read.axis is None))

    @property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """The nodes that read each of `activations` in INT8, by their first outputs."""
        readers: dict[str, tuple[str, ...]] = {}
        for read in self.inputs:
            if read.axis is None:
                source = self.range_source(read.tensor)
                readers[source] = (*readers.get(source, ()), read.node_output)
        return readers

    def range_source(self, tensor: str) -> str:
        """The tensor whose range `tensor` uses: itself by default."""
        return self.range_sources.get(tensor, tensor)


def _has_range(_tensor: str) -> None:
    """The default `missing_range`: every activation has a range."""


def plan_quantization(
    graph: ir.Graph,
    missing_range: MissingRange = _has_range,
    nodes_to_exclude: Collection[str] = (),
    attention: bool = False,
    weight_only: Collection[str] = (),
) -> QuantizationPlan:
    """Decide which nodes of the main graph run in INT8.

    The candidates and their order depend on the graph alone.

    Args:
        graph: The graph of a float model with inferred shapes.
        missing_range: Returns why an activation has no range, which excludes its readers; None if it has one.
        nodes_to_exclude: Nodes to exclude, by their first output; see `select_nodes` for patterns.
        attention: Also quantize the MatMuls of attention, over sequences of up to 512 positions.
        weight_only: Nodes of which only the weight is quantized, by their first output; nodes without a weight are not
            quantized.

    Raises:
        UsageError: `nodes_to_exclude` or `weight_only` has a name that is not the first output of a candidate.
    """
    planner = _Planner(graph, missing_range, nodes_to_exclude, weight_only)
    for node in graph:
        if node.domain == "" and node.op_type in WEIGHTED_OPS:
            planner.plan_weighted(node, attention)
        elif node.domain == "" and node.op_type == "Gather":
            planner.plan_embedding(node)
    planner.plan_residuals()
    planner.plan_propagation()
    plan = planner.result()
    candidates = [node.output for node in plan.nodes]
    _check_known("nodes_to_exclude", nodes_to_exclude, candidates)
    _check_known("weight_only", weight_only, candidates)
    return plan


def int8_fraction(plan: QuantizationPlan, macs: Mapping[str, int]) -> float:
    """The fraction, 0 to 1, of all multiply-accumulates in `macs` that run in INT8; 0 if there are none."""
    total = sum(macs.values())
    return sum(macs.get(node.output, 0) for node in plan.nodes if node.is_int8) / total if total else 0.0


class _Planner:
    """Collects decisions. The order of the calls matters: later kinds of nodes depend on earlier decisions."""

    def __init__(
        self,
        graph: ir.Graph,
        missing_range: MissingRange,
        nodes_to_exclude: Collection[str],
        weight_only: Collection[str],
    ) -> None:
        self._graph = graph
        self._flow = DataFlow.of(graph)
        self._order = {node: index for index, node in enumerate(graph)}
        self._missing_range = missing_range
        self._nodes_to_exclude = frozenset(nodes_to_exclude)
        self._weight_only = frozenset(weight_only)
        self._decided: dict[ir.Node, NodePlan] = {}
        self._inputs: dict[ir.Node, list[tuple[int, int | None]]] = {}
        self._quantizable: set[str] = set()  # weighted nodes excluded at most by the user or for lack of a range
        self._range_sources: dict[str, str] = {}

    def plan_weighted(self, node: ir.Node, attention: bool) -> None:
        if all(name_of(value) in self._flow.activations for value in node.inputs[:2]):
            reason = attention_exclusion_reason(node, attention)
            self._decide(node, reason, "attention, on request", [(0, None), (1, None)])
            return
        reason = weighted_exclusion_reason(node, self._flow)
        if reason is None:
            self._quantizable.add(name_of(node.outputs[0]))
        if name_of(node.outputs[0]) in self._weight_only:
            reason = weighted_exclusion_reason(node, self._flow, weight_only=True)
        self._decide(node, reason, "weighted operator", [(0, None), (1, weight_axis(node))])

    def plan_embedding(self, node: ir.Node) -> None:
        reason = embedding_exclusion_reason(node, self._flow)
        if reason is None or name_of(node.outputs[0]) in self._flow.activations:
            self._decide(node, reason, "embedding: rows stored in INT8", [(0, 0)])

    def plan_residuals(self) -> None:
        int8_outputs = {node.output for node in self._decided.values() if node.is_int8}
        for node in self._graph:
            residual = match_residual(node, int8_outputs, self._flow, self._order) or match_residual(
                node, self._quantizable, self._flow, self._order
            )
            if residual is None:
                continue
            reason = None
            if residual.convolution not in int8_outputs:
                reason = f"its convolution {residual.convolution!r} does not run in INT8"
            self._decide(node, reason, "residual Add: fused into its convolution", [(residual.shortcut_index, None)])

    def plan_propagation(self) -> None:
        quantized_inputs = [(node, index) for node, inputs in self._inputs.items() for index, _ in inputs]
        propagation = QdqPropagation(self._flow, quantized_inputs, self._missing_range)
        for node in reversed(self._graph):
            if is_passthrough(node, self._flow):
                reason = propagation.exclusion_reason(node)
                if self._decide(node, reason, "propagates quantization", []):
                    self._inputs[node] = [(index, None) for index in propagation.propagate(node)]
        self._range_sources = {name: propagation.range_source(name) for name in propagation.range_sources}

    def result(self) -> QuantizationPlan:
        ordered = sorted(self._decided, key=self._order.__getitem__)
        inputs = [
            QuantizedInput(name_of(node.outputs[0]), index, name_of(node.inputs[index]), axis)
            for node in ordered
            for index, axis in self._inputs.get(node, ())
        ]
        nodes = tuple(self._decided[node] for node in ordered)
        return QuantizationPlan(nodes, tuple(inputs), self._range_sources, tuple(_unsupported(self._graph)))

    def _decide(
        self, node: ir.Node, exclusion_reason: str | None, int8_reason: str, inputs: list[tuple[int, int | None]]
    ) -> bool:
        """Record the decision on `node`, whose `inputs` (index, axis) get Q/DQ in INT8; return whether it is INT8."""
        name = name_of(node.outputs[0])
        reason = exclusion_reason
        if reason is None and name in self._nodes_to_exclude:
            reason = "excluded from quantization"
        is_embedding = node.op_type == "Gather"
        if reason is None and name in self._weight_only and not is_embedding:
            return self._decide_weight_only(node, [(index, axis) for index, axis in inputs if axis is not None])
        if reason is None:
            missing = (self._missing_range(name_of(node.inputs[index])) for index, axis in inputs if axis is None)
            reason = next(filter(None, missing), None)
        self._decided[node] = NodePlan(name, node.op_type, reason is None, reason or int8_reason)
        if reason is None:
            self._inputs[node] = inputs
        return reason is None

    def _decide_weight_only(self, node: ir.Node, weights: list[tuple[int, int | None]]) -> bool:
        """Record that of `node` only its weight is quantized, if it has one; False, as it does not run in INT8."""
        reason = "weight only: INT8 weight, float activations" if weights else "weight only, and it has no weight"
        self._decided[node] = NodePlan(name_of(node.outputs[0]), node.op_type, False, reason, bool(weights))
        self._inputs[node] = weights
        return False


def _unsupported(graph: ir.Graph) -> list[NodePlan]:
    """Custom ops, and weighted operators in bodies."""
    unsupported = []
    for node in graph:
        name = name_of(node.outputs[0])
        if is_custom(node.op_type, node.domain):
            reason = f"custom op {node.domain + '::' if node.domain else ''}{node.op_type} is not supported"
            if not is_runnable(node.op_type, node.domain):
                reason += "; ONNX Runtime cannot run it, so models are compared by its inputs"
            unsupported.append(NodePlan(name, node.op_type, False, reason))
        unsupported += [
            NodePlan(name_of(inner.outputs[0]), inner.op_type, False, f"inside {node.op_type} {name!r}")
            for inner in inner_nodes(node)
            if inner.op_type in WEIGHTED_OPS and inner.domain == ""
        ]
    return unsupported


def _check_known(parameter: str, names: Collection[str], candidates: list[str]) -> None:
    for name in names:
        if name not in candidates:
            similar = difflib.get_close_matches(name, candidates, 3)
            raise UsageError(
                f"{parameter}: no quantizable node has {name!r} as its first output"
                + (f" (most similar: {', '.join(map(repr, similar))})" if similar else "")
            )
