"""From what people write (node names, output names, op types, patterns) to the nodes that are not quantized."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.plan import plan_quantization

_NEAREST = 3


def nodes_not_quantized(
    model: Model, exclude: Sequence[str], include: Sequence[str] = (), attention: bool = False
) -> tuple[str, ...]:
    """The quantizable nodes of `model` that `exclude` names, or that `include`, if given, does not; in graph order.

    Args:
        model: the float model.
        exclude: node names, names of their outputs, op types, or patterns of these with *, ? and []. A name that is
            spelled out in the model is not taken for a pattern.
        include: the same forms.
        attention: whether the MatMuls of attention are quantizable, too.

    Returns:
        The nodes by the name of their first output, as `plan_quantization` takes them.

    Raises:
        UsageError: no quantizable node matches; with the nearest names.
    """
    if not exclude and not include:
        return ()
    graph = model.to_ir().graph
    names = {candidate.output for candidate in plan_quantization(graph, attention=attention).nodes}
    nodes = [node for node in graph if name_of(node.outputs[0]) in names]
    excluded = _matching("nodes_to_exclude", exclude, nodes)
    if include:
        excluded |= names - _matching("nodes_to_include", include, nodes)
    return tuple(name for node in nodes if (name := name_of(node.outputs[0])) in excluded)


def _matching(parameter: str, patterns: Sequence[str], nodes: list[ir.Node]) -> set[str]:
    """First outputs of the nodes that any of `patterns` matches."""
    called = {name_of(node.outputs[0]): _names(node) for node in nodes}
    found: set[str] = set()
    for pattern in patterns:
        matched = {output for output, names in called.items() if pattern in names} or {
            output for output, names in called.items() if any(fnmatchcase(name, pattern) for name in names)
        }
        if not matched:
            known = dict.fromkeys(name for names in called.values() for name in names)
            nearest = difflib.get_close_matches(pattern, known, _NEAREST)
            raise UsageError(
                f"`{parameter}`: no quantizable node has the name, output or op type {pattern!r}"
                + (f"; nearest: {', '.join(map(repr, nearest))}" if nearest else "")
            )
        found |= matched
    return found


def _names(node: ir.Node) -> list[str]:
    return [*filter(None, [node.name, *map(name_of, node.outputs), node.op_type])]
