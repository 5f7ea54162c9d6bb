"""A rule, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from trt_ptq.lint.quantized_graph import QuantizedGraph

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing to know about `node`: what was `found` there, its `effect` in TensorRT, and what to do.

    `severity` is "error" (TensorRT refuses it, or the numbers are wrong), "warning" (slower or less accurate), or
    "note" (nothing is wrong, but it does not run everywhere).
    """

    severity: Severity
    rule: str
    node: str
    found: str
    effect: str
    remedy: str


@dataclass(frozen=True)
class Location:
    """A node that a rule is about, and what was found there."""

    node: ir.Node
    found: str


@dataclass(frozen=True)
class Rule:
    """A defect: what TensorRT makes of it, what to do, and how to find it."""

    name: str
    severity: Severity
    effect: str
    remedy: str
    find: Callable[[QuantizedGraph], Iterable[Location]]

    def findings(self, graph: QuantizedGraph) -> list[Finding]:
        """All places in the order in which `find` gives them."""
        return [
            Finding(self.severity, self.name, node_name(place.node), place.found, self.effect, self.remedy)
            for place in self.find(graph)
        ]


def node_name(node: ir.Node) -> str:
    """The node's name, or that of its first output where it has none."""
    return node.name or next((value.name for value in node.outputs if value.name), None) or node.op_type
