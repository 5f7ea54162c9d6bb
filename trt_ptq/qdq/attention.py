"""The two MatMuls of attention: queries with keys before a Softmax, probabilities with values behind it."""

from __future__ import annotations

import onnx_ir as ir

LONGEST_SEQUENCE = 512
_BEFORE_SOFTMAX = {"Mul", "Div", "Add", "Where", "Cast", "Reshape", "Flatten", "Identity", "Transpose"}
_BEHIND_SOFTMAX = {"Cast", "Reshape", "Flatten", "Identity", "Transpose", "Dropout"}


def why_float_attention(node: ir.Node, chosen: bool) -> str | None:
    """Why a MatMul of two activations stays float; None when it can run in INT8.

    Attention in INT8 is a choice, since fused attention kernels in FP16 are often as fast and always closer. Over
    long sequences the probabilities are too small for 8 bits, and the choice does not hold.
    """
    length = _sequence(node)
    if length is None:
        return "both inputs are activations"
    if not chosen:
        return "attention: float unless chosen"
    if isinstance(length, int) and length > LONGEST_SEQUENCE:
        return f"attention over {length} positions, more than {LONGEST_SEQUENCE}: too fine for INT8"
    return None


def _sequence(node: ir.Node) -> int | str | None:
    """How many positions are attended to, or the name of that dimension; None if it is no MatMul of attention."""
    left = node.inputs[0]
    if left is not None and _behind_softmax(left):
        return _last(left)
    return _last(node.outputs[0]) if _before_softmax(node.outputs[0]) else None


def _before_softmax(value: ir.Value) -> bool:
    waiting, seen = [value], {value}
    while waiting:
        for node in {use.node for use in waiting.pop().uses()}:
            if node.op_type == "Softmax":
                return True
            if node.op_type in _BEFORE_SOFTMAX and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return False


def _behind_softmax(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and node.op_type in _BEHIND_SOFTMAX and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Softmax"


def _last(value: ir.Value) -> int | str:
    size = value.shape[-1] if value.shape else "?"
    return size if isinstance(size, int) else str(size)
