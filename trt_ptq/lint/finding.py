"""A lint rule, and its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from trt_ptq.lint.quantized_graph import QuantizedGraph

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """A defect of a Q/DQ model.

    Attributes:
        severity: "error": TensorRT refuses the model, or the results are wrong; "warning": slower or less accurate;
            "note": nothing is wrong, but the model does not run on all GPUs.
        rule: The id of the rule.
        node: The name of the node.
        detail: What was found there.
        effect: What TensorRT does with it.
        remedy: How to fix it.
    """

    severity: Severity
    rule: str
    node: str
    detail: str
    effect: str
    remedy: str


@dataclass(frozen=True)
class Location:
    """A node that violates a rule, and what was found there."""

    node: ir.Node
    detail: str


@dataclass(frozen=True)
class Rule:
    """A kind of defect.

    Attributes:
        id: The name of the rule.
        severity: See `Finding`.
        effect: What TensorRT does with such a model.
        remedy: How to fix it.
        evidence: Where the effect is documented or how it was observed.
        check: Yields the nodes that violate the rule.
    """

    id: str
    severity: Severity
    effect: str
    remedy: str
    evidence: str
    check: Callable[[QuantizedGraph], Iterable[Location]]

    def findings(self, graph: QuantizedGraph) -> list[Finding]:
        """All violations, in the order of `check`."""
        return [
            Finding(self.severity, self.id, node_name(location.node), location.detail, self.effect, self.remedy)
            for location in self.check(graph)
        ]


def node_name(node: ir.Node) -> str:
    """The node's name; the name of its first output if it has none."""
    return node.name or next((value.name for value in node.outputs if value.name), None) or node.op_type
