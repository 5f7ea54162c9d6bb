"""Constant tensors: initializers, and weights behind a Transpose, Reshape or the like."""

from __future__ import annotations

import onnx_ir as ir

from trt_ptq.analysis.node_evaluation import evaluate_node
from trt_ptq.analysis.op_types import RESHAPING_OPS
from trt_ptq.errors import ModelError
from trt_ptq.types import Array


def is_constant(value: ir.Value) -> bool:
    """Whether `value` is an initializer, or computed from initializers by reshaping and casting alone."""
    node = value.producer()
    if node is None:
        return value.const_value is not None
    if (node.op_type not in RESHAPING_OPS and node.op_type != "Cast") or node.domain != "":
        return False
    return all(operand is None or is_constant(operand) for operand in node.inputs)


def constant_value(value: ir.Value, opset: int) -> Array:
    """Compute the array of a value for which `is_constant` holds.

    Raises:
        ModelError: A node on the path is invalid.
    """
    node = value.producer()
    if node is None:
        assert value.const_value is not None
        return value.const_value.numpy()
    operands = {str(operand.name): constant_value(operand, opset) for operand in node.inputs if operand is not None}
    outputs = evaluate_node(ir.to_proto(node), operands, opset)
    if outputs is None:
        raise ModelError(f"weight {value.name!r} cannot be computed: its {node.op_type} is invalid")
    return outputs[str(value.name)]
