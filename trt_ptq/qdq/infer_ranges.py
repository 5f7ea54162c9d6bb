"""Ranges for tensors that a table lacks, from those that it has: what follows from the graph without any data.

Names do not always carry over from the network that a table was made with to the model at hand, and TensorRT asks
for ranges that a table may lack. A range is derived where, and only where, it cannot clip more than the range it
comes from, in `v -> w`, range of v known, range of w wanted:

- Identity, Reshape, Transpose, Flatten, Squeeze, Unsqueeze, both ways: the same values in another arrangement.
- Concat, input <- output: an input's values are among the output's, so the output's range covers them. NVIDIA gives
  Concat inputs their output's range for that reason.
- Concat, inputs -> output: the largest of the inputs' ranges covers the output, once all inputs have one.
- MaxPool, input -> output: the output's values are among the input's.
- MaxPool, input <- output: only if the input is never negative (a ReLU made it) and every value lies in a window: then
  the largest value survives. Otherwise a negative value larger in size may be left out. (Values in an incomplete
  window at the edge are taken to be like the others.)
- Relu, input -> output: |max(x, 0)| <= |x|. Never input <- output: negative values do not show in the output, and may
  be larger in size.

Ranges that the table has are never changed, nor is one derived for a tensor whose range in the table is unusable.
Where several derivations lead to a tensor, the same values in another arrangement go first, then the smallest
range: each covers the tensor.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.analysis.dataflow import activations
from trt_ptq.calibrators.table.calibration_table import CalibrationTable

_REARRANGING = {"Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"}
_NEVER_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax"}


@dataclass(frozen=True)
class InferredRange:
    """The range of tensor `name`, as it follows from the table's range of tensor `source`; `rule` says how."""

    name: str
    amax: float
    source: str
    rule: str


@dataclass(frozen=True)
class _Rule:
    """The range of group `target` is the largest of those of the groups `sources`."""

    sources: tuple[str, ...]
    target: str
    name: str


def infer_ranges(graph: ir.Graph, table: CalibrationTable) -> tuple[InferredRange, ...]:
    """Ranges for activations that `table` lacks, in graph order.

    Each rule gives the largest of its sources' ranges, so settling tensors in the order of their range, smallest
    first, gives each its smallest (Knuth, "A Generalization of Dijkstra's Algorithm", 1977).
    """
    known = activations(graph)
    group = _same_values(graph, known)
    settled: dict[str, tuple[float, str]] = {}
    reached: list[tuple[float, str, str, str]] = []  # range, group, the table's tensor, rule
    for name in sorted(known & table.amax.keys()):
        amax, _ = settled.get(group[name], (0.0, ""))
        if table.amax[name] > amax:
            settled[group[name]] = (table.amax[name], name)
    how = dict.fromkeys(settled, "same values")
    waiting: dict[str, list[_Rule]] = {}
    for rule in _rules(graph, known, group):
        for source in set(rule.sources):
            waiting.setdefault(source, []).append(rule)

    def reach(source: str) -> None:
        for rule in waiting.get(source, ()):
            if rule.target not in settled and all(one in settled for one in rule.sources):
                amax, tensor = max(settled[one] for one in rule.sources)
                heapq.heappush(reached, (amax, rule.target, tensor, rule.name))

    for one in list(settled):
        reach(one)
    while reached:
        amax, target, tensor, rule_name = heapq.heappop(reached)
        if target not in settled:
            settled[target] = (amax, tensor)
            how[target] = rule_name
            reach(target)
    ordered = [value.name or "" for value in [*graph.inputs, *(out for node in graph for out in node.outputs)]]
    return tuple(
        InferredRange(name, *settled[group[name]], how[group[name]])
        for name in ordered
        if name in known
        and name not in table.amax
        and name not in table.tensors_without_range
        and group[name] in settled
    )


def _same_values(graph: ir.Graph, known: set[str]) -> dict[str, str]:
    """For each activation the first tensor that holds the same values."""
    first = {name: name for name in known}
    for node in graph:
        source, target = _data_input(node), node.outputs[0].name or ""
        if node.op_type in _REARRANGING and node.domain == "" and source in known and target in known:
            first[target] = first[source]
    return first


def _rules(graph: ir.Graph, known: set[str], group: dict[str, str]) -> Iterator[_Rule]:
    never_negative: set[str] = set()
    for node in graph:
        target = node.outputs[0].name or ""
        if node.domain != "" or target not in known:
            continue
        target = group[target]
        inputs = [value.name or "" for value in node.inputs if value is not None]
        sources = tuple(group[name] for name in inputs if name in known)
        if node.op_type in _NEVER_NEGATIVE:
            never_negative.add(target)
        if not sources:
            continue
        if node.op_type == "Relu":
            yield _Rule(sources, target, "Relu output from its input")
        elif node.op_type == "MaxPool":
            yield _Rule(sources, target, "MaxPool output from its input")
            if sources[0] in never_negative:
                never_negative.add(target)
                if _sees_every_value(node):
                    yield _Rule((target,), sources[0], "MaxPool input from its output")
        elif node.op_type == "Concat":
            if len(sources) == len(inputs):
                yield _Rule(sources, target, "Concat output from its inputs")
                if never_negative.issuperset(sources):
                    never_negative.add(target)
            for source in sources:
                yield _Rule((target,), source, "Concat input from its output")


def _sees_every_value(pool: ir.Node) -> bool:
    """Whether the windows of a MaxPool leave no value out between them."""
    kernel = pool.attributes.get_ints("kernel_shape", [])
    strides = pool.attributes.get_ints("strides", [1] * len(kernel))
    dilations = pool.attributes.get_ints("dilations", [1] * len(kernel))
    return all(step <= size for step, size in zip(strides, kernel, strict=True)) and all(one == 1 for one in dilations)


def _data_input(node: ir.Node) -> str:
    value = node.inputs[0] if node.inputs else None
    return (value.name if value is not None else None) or ""
