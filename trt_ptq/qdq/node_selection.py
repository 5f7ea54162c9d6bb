"""Select the nodes to exclude from quantization by name, operator or glob pattern."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.errors import UsageError
from trt_ptq.qdq.plan import plan_quantization


@dataclass(frozen=True)
class _Candidate:
    """A quantizable node: its first output, which identifies it, and the names that patterns are matched against."""

    output: str
    names: frozenset[str]
    op_type: str

    def matches(self, pattern: str) -> bool:
        return pattern == self.op_type or any(name == pattern or fnmatchcase(name, pattern) for name in self.names)


def select_nodes(
    graph: ir.Graph,
    include: Collection[str] = (),
    exclude: Collection[str] = (),
    exclude_name: str = "`nodes_to_exclude`",
) -> tuple[str, ...]:
    """Select the nodes to exclude from quantization.

    A pattern is the name of a node, the name of an output, an operator type ("Conv"), or a glob pattern over node and
    output names ("*/attention/*"; case-sensitive, see `fnmatch`). It must match a node that could run in INT8.

    Args:
        graph: The graph of a float model with inferred shapes.
        include: Quantize matching nodes only; empty for all.
        exclude: Exclude matching nodes. Takes precedence over `include`.
        exclude_name: What messages call `exclude`, such as the field of a recipe.

    Returns:
        The nodes to exclude, by their first output, in graph order: the `nodes_to_exclude` of `plan_quantization`.

    Raises:
        UsageError: A pattern matches no quantizable node; names the most similar ones.
    """
    candidates = _candidates(graph)
    included = _match(candidates, include, "`nodes_to_include`") if include else {node.output for node in candidates}
    excluded = _match(candidates, exclude, exclude_name)
    return tuple(node.output for node in candidates if node.output in excluded or node.output not in included)


def select_weight_only(
    graph: ir.Graph, patterns: Collection[str], nodes_to_exclude: Collection[str] = (), name: str = "`weight_only`"
) -> tuple[str, ...]:
    """Select the nodes of which only the weight is quantized.

    Args:
        graph: The graph of a float model with inferred shapes.
        patterns: As for `select_nodes`; nodes without a weight do not count.
        nodes_to_exclude: Nodes that are not quantized at all, by their first output.
        name: What messages call `patterns`, such as the field of a recipe.

    Returns:
        The nodes, by their first output, in graph order: the `weight_only` of `plan_quantization`.

    Raises:
        UsageError: A pattern matches no node that could be quantized.
    """
    matched = _match(_candidates(graph), patterns, name)
    plan = plan_quantization(graph, nodes_to_exclude=nodes_to_exclude, weight_only=matched)
    return tuple(node.output for node in plan.nodes if node.weight_only)


def _candidates(graph: ir.Graph) -> list[_Candidate]:
    nodes = {name_of(node.outputs[0]): node for node in graph}
    candidates = []
    for plan in plan_quantization(graph).nodes:
        node = nodes[plan.output]
        names = {node.name or "", *map(name_of, node.outputs)} - {""}
        candidates.append(_Candidate(plan.output, frozenset(names), plan.op_type))
    return candidates


def _match(candidates: list[_Candidate], patterns: Collection[str], parameter: str) -> set[str]:
    """The outputs of the candidates that match any of `patterns`; `parameter` starts the message."""
    matched = set()
    for pattern in patterns:
        outputs = {node.output for node in candidates if node.matches(pattern)}
        if not outputs:
            known = sorted({name for node in candidates for name in (*node.names, node.op_type)})
            similar = difflib.get_close_matches(pattern, known, 3)
            hint = f" (most similar: {', '.join(map(repr, similar))})" if similar else ""
            raise UsageError(
                f"{parameter}: no quantizable node matches {pattern!r}{hint}: give names of nodes or of their outputs, "
                "op types, or patterns"
            )
        matched |= outputs
    return matched
