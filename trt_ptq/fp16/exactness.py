"""Nodes whose numbers float16 would spoil without leaving its range.

- Numbers made of integers (positions, sizes, masks), until they meet an activation or a weight: float16 counts exactly
  only to 2048.
- Angles, whose error counts in absolute terms, back to the last weighted node.
"""

from __future__ import annotations

import onnx_ir as ir

from trt_ptq.fp16.convertible_io import TYPE_CONVERTING_OPS, is_float32

_ANGLES = {"Sin", "Cos", "Tan"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "Einsum", "RNN", "GRU", "LSTM"}


def needs_exactness(graph: ir.Graph) -> dict[ir.Node, str]:
    """The nodes, and why."""
    reasons: dict[ir.Node, str] = {}
    numbers: set[ir.Value] = set()
    for node in graph:
        floats = [value for value in node.inputs if is_float32(value)]
        if node.op_type == "Cast":
            source = node.inputs[0]
            if source in numbers or (source is not None and source.dtype is not None and source.dtype.is_integer()):
                numbers.update(node.outputs)
        elif node.op_type in TYPE_CONVERTING_OPS or _has_weight(node):
            continue
        elif any(one in numbers for one in floats) and all(
            one in numbers or (one is not None and one.const_value is not None) for one in floats
        ):
            numbers.update(node.outputs)
            reasons[node] = "computed from integers"
        if node.op_type in _ANGLES:
            reasons.setdefault(node, "an angle")
            _trace_back(node, reasons)
    return reasons


def _trace_back(angle: ir.Node, reasons: dict[ir.Node, str]) -> None:
    """Adds what `angle` is computed by, back to weighted nodes and conversions."""
    waiting = [angle]
    while waiting:
        for value in waiting.pop().inputs:
            source = value.producer() if is_float32(value) and value is not None else None
            if source is None or source in reasons or source.op_type in TYPE_CONVERTING_OPS or _has_weight(source):
                continue
            reasons[source] = "part of an angle"
            waiting.append(source)


def _has_weight(node: ir.Node) -> bool:
    """Whether a node sums products with a weight; a MatMul over one element (K = 1) only multiplies."""
    if node.op_type != "MatMul":
        return node.op_type in _WEIGHTED
    left = node.inputs[0]
    by_one = left is not None and left.shape is not None and left.shape[-1] == 1
    return not by_one and any(map(_is_weight, node.inputs))


def _is_weight(value: ir.Value | None) -> bool:
    if value is None:
        return False
    source = value.producer()
    if source is not None and source.op_type == "DequantizeLinear":
        value = source.inputs[0]
    return value is not None and value.const_value is not None
