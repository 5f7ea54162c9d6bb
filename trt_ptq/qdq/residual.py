"""Residual Adds, which TensorRT fuses into the kernel of the convolution before them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.analysis.constants import is_constant
from trt_ptq.analysis.dataflow import DataFlow, name_of


@dataclass(frozen=True)
class Residual:
    """A residual Add.

    Attributes:
        shortcut_index: The input of the Add that is the shortcut.
        convolution: The convolution behind the other input, by its first output.
    """

    shortcut_index: int
    convolution: str


def match_residual(
    node: ir.Node, convolutions: Collection[str], flow: DataFlow, order: Mapping[ir.Node, int]
) -> Residual | None:
    """Match a residual Add.

    One of its inputs must come from a convolution that has no other reader. If both do (projection shortcut), TensorRT
    fuses the Add into the later convolution.

    Args:
        node: The node to match.
        convolutions: The convolutions to consider, by their first output.
        flow: The data flow of the graph.
        order: The position of each node in the graph.

    Returns:
        None if `node` is not a residual Add.
    """
    if node.op_type != "Add" or node.domain != "" or node.inputs[0] is node.inputs[1] or broadcasts(node):
        return None
    if any(name_of(value) not in flow.activations for value in node.inputs):
        return None
    sources = [_source_convolution(value, convolutions) for value in node.inputs]
    positions = [-1 if source is None else order[source] for source in sources]
    shortcut_index = 0 if positions[1] > positions[0] else 1
    convolution = sources[1 - shortcut_index]
    return None if convolution is None else Residual(shortcut_index, name_of(convolution.outputs[0]))


def broadcasts(node: ir.Node) -> bool:
    """Whether an Add is known to broadcast one of its inputs; a residual Add does not."""
    first, second = (None if value is None else value.shape for value in node.inputs)
    if first is None or second is None:
        return False
    return len(first) != len(second) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(first, second, strict=True)
    )


def _source_convolution(value: ir.Value | None, convolutions: Collection[str]) -> ir.Node | None:
    """The convolution that computes `value`, if neither it nor what is fused into it has another reader."""
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Conv":
            return node if name_of(node.outputs[0]) in convolutions else None
        data = _scaled_input(node)
        if data is None:
            return None
        value = data
    return None


def _scaled_input(node: ir.Node) -> ir.Value | None:
    """The data input of a node that is fused as well: BatchNormalization, or Mul or Add with a constant."""
    if node.domain != "" or node.op_type not in ("BatchNormalization", "Mul", "Add"):
        return None
    if node.op_type == "BatchNormalization":
        return node.inputs[0]
    data = [value for value in node.inputs if value is not None and not is_constant(value)]
    return data[0] if len(data) == 1 else None
