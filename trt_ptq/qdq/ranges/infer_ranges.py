"""Infer ranges that a table lacks from those that it has, by the graph alone.

Tensor names may differ between the network that a table was made with and the model at hand, and TensorRT needs ranges
that a table may lack. A range is inferred only if it cannot clip more than the range it is inferred from:

- Identity, Reshape, Transpose, Flatten, Squeeze, Unsqueeze, in both directions: the same values in another arrangement.
- Concat, input from output: the values of an input are a subset of the output's. NVIDIA gives Concat inputs the range
  of the output for that reason.
- Concat, output from inputs: the largest range of the inputs covers the output, once all inputs have one.
- MaxPool, output from input: the output's values are a subset of the input's.
- MaxPool, input from output: only if the input is never negative (for example after a Relu) and the windows cover all
  values: then the maximum survives. Otherwise a negative value of larger magnitude may be dropped. (Values in an
  incomplete window at the border are assumed to be like the others.)
- Relu, output from input: |max(x, 0)| <= |x|. Never input from output: negative values do not appear in the output and
  may have a larger magnitude.

Ranges of the table never change, and none is inferred for a tensor whose range in the table is unusable. If several
rules lead to a tensor, equal values in another arrangement take precedence, then the smallest range.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.analysis.dataflow import activations, name_of
from trt_ptq.analysis.op_types import RESHAPING_OPS
from trt_ptq.calibrators.table.calibration_table import CalibrationTable

_NON_NEGATIVE_OPS = {"Relu", "Sigmoid", "HardSigmoid", "Softmax"}


@dataclass(frozen=True)
class InferredRange:
    """An inferred range.

    Attributes:
        name: The tensor.
        amax: Its dynamic range, that of `source`.
        source: The tensor of the table that it was inferred from.
        rule: The rule that was applied.
    """

    name: str
    amax: float
    source: str
    rule: str


@dataclass(frozen=True)
class _Rule:
    """The range of group `target` is the largest range of the groups `sources`."""

    sources: tuple[str, ...]
    target: str
    name: str


def infer_ranges(graph: ir.Graph, table: CalibrationTable) -> tuple[InferredRange, ...]:
    """Infer ranges for activations that `table` lacks.

    Every rule yields the maximum of its sources' ranges, so resolving tensors in increasing order of their range
    gives each its smallest (Knuth, "A Generalization of Dijkstra's Algorithm", 1977).

    Args:
        graph: The graph of the model with inferred shapes.
        table: The ranges to start from.

    Returns:
        The inferred ranges in graph order.
    """
    names = activations(graph)
    group = _same_values(graph, names)
    resolved: dict[str, tuple[float, str]] = {}
    queue: list[tuple[float, str, str, str]] = []  # range, group, tensor of the table, rule
    for name in sorted(names & table.amax.keys()):
        amax, _ = resolved.get(group[name], (0.0, ""))
        if table.amax[name] > amax:
            resolved[group[name]] = (table.amax[name], name)
    rule_of = dict.fromkeys(resolved, "same values")
    rules_by_source: dict[str, list[_Rule]] = {}
    for rule in _rules(graph, names, group):
        for source in set(rule.sources):
            rules_by_source.setdefault(source, []).append(rule)

    def enqueue(source: str) -> None:
        for rule in rules_by_source.get(source, ()):
            if rule.target not in resolved and all(required in resolved for required in rule.sources):
                amax, tensor = max(resolved[required] for required in rule.sources)
                heapq.heappush(queue, (amax, rule.target, tensor, rule.name))

    for source in list(resolved):
        enqueue(source)
    while queue:
        amax, target, tensor, rule_name = heapq.heappop(queue)
        if target not in resolved:
            resolved[target] = (amax, tensor)
            rule_of[target] = rule_name
            enqueue(target)
    ordered = [name_of(value) for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]]
    return tuple(
        InferredRange(name, *resolved[group[name]], rule_of[group[name]])
        for name in ordered
        if name in names
        and name not in table.amax
        and name not in table.tensors_without_range
        and group[name] in resolved
    )


def _same_values(graph: ir.Graph, names: set[str]) -> dict[str, str]:
    """Maps each activation to the first tensor that holds the same values."""
    first = {name: name for name in names}
    for node in graph:
        source, target = name_of(node.inputs[0]) if node.inputs else "", name_of(node.outputs[0])
        if node.op_type in RESHAPING_OPS and node.domain == "" and source in names and target in names:
            first[target] = first[source]
    return first


def _rules(graph: ir.Graph, names: set[str], group: dict[str, str]) -> Iterator[_Rule]:
    non_negative: set[str] = set()
    for node in graph:
        target = name_of(node.outputs[0])
        if node.domain != "" or target not in names:
            continue
        target = group[target]
        inputs = [name_of(value) for value in node.inputs if value is not None]
        sources = tuple(group[name] for name in inputs if name in names)
        if node.op_type in _NON_NEGATIVE_OPS:
            non_negative.add(target)
        if not sources:
            continue
        if node.op_type == "Relu":
            yield _Rule(sources, target, "Relu output from its input")
        elif node.op_type == "MaxPool":
            yield _Rule(sources, target, "MaxPool output from its input")
            if sources[0] in non_negative:
                non_negative.add(target)
                if _windows_cover_all_values(node):
                    yield _Rule((target,), sources[0], "MaxPool input from its output")
        elif node.op_type == "Concat":
            if len(sources) == len(inputs):
                yield _Rule(sources, target, "Concat output from its inputs")
                if non_negative.issuperset(sources):
                    non_negative.add(target)
            for source in sources:
                yield _Rule((target,), source, "Concat input from its output")


def _windows_cover_all_values(pool: ir.Node) -> bool:
    """Whether the windows of a MaxPool leave no gaps."""
    kernel = pool.attributes.get_ints("kernel_shape", [])
    strides = pool.attributes.get_ints("strides", [1] * len(kernel))
    dilations = pool.attributes.get_ints("dilations", [1] * len(kernel))
    contiguous = all(stride <= size for stride, size in zip(strides, kernel, strict=True))
    return contiguous and all(dilation == 1 for dilation in dilations)
