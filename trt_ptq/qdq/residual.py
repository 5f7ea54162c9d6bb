"""Residual Adds that TensorRT computes in the kernel of the convolution before them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.analysis.constants import is_constant
from trt_ptq.analysis.dataflow import DataFlow, name_of


@dataclass(frozen=True)
class Residual:
    """Input `shortcut` of the Add is the shortcut; the other comes from the node `convolution`, by its first output."""

    shortcut: int
    convolution: str


def match_residual(
    node: ir.Node, convolutions: Collection[str], flow: DataFlow, order: Mapping[ir.Node, int]
) -> Residual | None:
    """The parts of a residual Add; None when `node` is none.

    One input comes straight from one of `convolutions` that nothing else reads. Where both do (a projection shortcut),
    the later convolution takes the Add into its kernel.
    """
    if node.op_type != "Add" or node.domain != "" or node.inputs[0] is node.inputs[1] or broadcasts(node):
        return None
    if any(name_of(value) not in flow.activations for value in node.inputs):
        return None
    sources = [_convolution(value, convolutions) for value in node.inputs]
    positions = [-1 if one is None else order[one] for one in sources]
    shortcut = 0 if positions[1] > positions[0] else 1
    convolution = sources[1 - shortcut]
    return None if convolution is None else Residual(shortcut, name_of(convolution.outputs[0]))


def broadcasts(node: ir.Node) -> bool:
    """Whether an Add is known to stretch one of its inputs, as no residual does."""
    first, second = (None if value is None else value.shape for value in node.inputs)
    if first is None or second is None:
        return False
    return len(first) != len(second) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(first, second, strict=True)
    )


def _convolution(value: ir.Value | None, convolutions: Collection[str]) -> ir.Node | None:
    """The convolution behind `value`, when it and what fuses into it have no other reader."""
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Conv":
            return node if name_of(node.outputs[0]) in convolutions else None
        data = _data_of_scaling(node)
        if data is None:
            return None
        value = data
    return None


def _data_of_scaling(node: ir.Node) -> ir.Value | None:
    """The data of a BatchNormalization, or of a Mul or Add with a constant (a scale, a bias), which fuse as well."""
    if node.domain != "" or node.op_type not in ("BatchNormalization", "Mul", "Add"):
        return None
    if node.op_type == "BatchNormalization":
        return node.inputs[0]
    data = [value for value in node.inputs if value is not None and not is_constant(value)]
    return data[0] if len(data) == 1 else None
