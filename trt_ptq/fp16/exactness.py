"""Nodes that are inaccurate in float16 although their values are in its range.

- Values computed from integers (positions, sizes, masks), up to the first activation or weight: float16 represents
  integers exactly only up to 2048.
- Angles, whose absolute error matters, back to the last weighted node.
"""

from __future__ import annotations

import onnx_ir as ir

from trt_ptq.analysis.op_types import CONVOLUTIONS
from trt_ptq.fp16.convertible_io import TYPE_CONVERTING_OPS, is_float32

_TRIGONOMETRIC_OPS = {"Sin", "Cos", "Tan"}
_OPS_WITH_WEIGHTS = CONVOLUTIONS | {"Gemm", "Einsum", "RNN", "GRU", "LSTM"}


def needs_exactness(graph: ir.Graph) -> dict[ir.Node, str]:
    """The nodes that must stay float32 for accuracy, and why."""
    reasons: dict[ir.Node, str] = {}
    from_integers: set[ir.Value] = set()
    for node in graph:
        operands = [value for value in node.inputs if is_float32(value)]
        if node.op_type == "Cast":
            source = node.inputs[0]
            if source in from_integers or (
                source is not None and source.dtype is not None and source.dtype.is_integer()
            ):
                from_integers.update(node.outputs)
        elif node.op_type in TYPE_CONVERTING_OPS or _has_weight(node):
            continue
        elif any(value in from_integers for value in operands) and all(
            value in from_integers or (value is not None and value.const_value is not None) for value in operands
        ):
            from_integers.update(node.outputs)
            reasons[node] = "computed from integers"
        if node.op_type in _TRIGONOMETRIC_OPS:
            reasons.setdefault(node, "an angle")
            _trace_back(node, reasons)
    return reasons


def _trace_back(node: ir.Node, reasons: dict[ir.Node, str]) -> None:
    """Add the nodes that compute the angle of `node`, back to weighted nodes and type conversions."""
    pending = [node]
    while pending:
        for value in pending.pop().inputs:
            source = value.producer() if is_float32(value) and value is not None else None
            if source is None or source in reasons or source.op_type in TYPE_CONVERTING_OPS or _has_weight(source):
                continue
            reasons[source] = "part of an angle"
            pending.append(source)


def _has_weight(node: ir.Node) -> bool:
    """Whether a node accumulates products with a weight; a MatMul with K = 1 only multiplies."""
    if node.op_type != "MatMul":
        return node.op_type in _OPS_WITH_WEIGHTS
    left = node.inputs[0]
    is_outer_product = left is not None and left.shape is not None and left.shape[-1] == 1
    return not is_outer_product and any(map(_is_weight, node.inputs))


def _is_weight(value: ir.Value | None) -> bool:
    if value is None:
        return False
    source = value.producer()
    if source is not None and source.op_type == "DequantizeLinear":
        value = source.inputs[0]
    return value is not None and value.const_value is not None
