"""The two MatMuls of attention: query x key before the Softmax, and probabilities x value after it."""

from __future__ import annotations

import onnx_ir as ir

MAX_SEQUENCE_LENGTH = 512
_BETWEEN_QK_AND_SOFTMAX = {"Mul", "Div", "Add", "Where", "Cast", "Reshape", "Flatten", "Identity", "Transpose"}
_BETWEEN_SOFTMAX_AND_V = {"Cast", "Reshape", "Flatten", "Identity", "Transpose", "Dropout"}
_REARRANGING = {"Reshape", "Flatten", "Identity", "Transpose"}


def attention_exclusion_reason(node: ir.Node, attention: bool) -> str | None:
    """Why a MatMul of two activations does not run in INT8; None if it can.

    Attention runs in INT8 only on request, since fused attention kernels in FP16 are often as fast and always more
    accurate. Over long sequences the probabilities are too small for 8 bits, so it is excluded even on request.

    Args:
        node: A MatMul whose inputs are both activations.
        attention: Whether INT8 attention was requested.
    """
    length = _sequence_length(node)
    if length is None:
        return "both inputs are activations"
    if not attention:
        return "attention: runs in INT8 only on request"
    if isinstance(length, int) and length > MAX_SEQUENCE_LENGTH:
        return f"attention over {length} positions (limit {MAX_SEQUENCE_LENGTH}): probabilities too small for 8 bits"
    return None


def is_attention_output(value: ir.Value | None) -> bool:
    """Whether `value` is the product of attention probabilities and values, possibly rearranged."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _REARRANGING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    probabilities = node.inputs[0] if node is not None and node.op_type == "MatMul" else None
    return probabilities is not None and _follows_softmax(probabilities)


def _sequence_length(node: ir.Node) -> int | str | None:
    """Number of keys, or the name of that dynamic dimension; None if `node` is not an attention MatMul."""
    left = node.inputs[0]
    if left is not None and _follows_softmax(left):
        return _last_dimension(left)
    return _last_dimension(node.outputs[0]) if _precedes_softmax(node.outputs[0]) else None


def _precedes_softmax(value: ir.Value) -> bool:
    pending, visited = [value], {value}
    while pending:
        for node in {use.node for use in pending.pop().uses()}:
            if node.op_type == "Softmax":
                return True
            if node.op_type in _BETWEEN_QK_AND_SOFTMAX and node.outputs[0] not in visited:
                visited.add(node.outputs[0])
                pending.append(node.outputs[0])
    return False


def _follows_softmax(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and node.op_type in _BETWEEN_SOFTMAX_AND_V and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Softmax"


def _last_dimension(value: ir.Value) -> int | str:
    size = value.shape[-1] if value.shape else "?"
    return size if isinstance(size, int) else str(size)
