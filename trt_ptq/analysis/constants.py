"""Weights that reach their node through a Transpose, Reshape or the like."""

from __future__ import annotations

import onnx_ir as ir

from trt_ptq.analysis.node_evaluation import evaluate_node
from trt_ptq.errors import ModelError
from trt_ptq.types import Array

_VIEWS = {"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"}


def is_constant(value: ir.Value) -> bool:
    """Whether `value` is an initializer, or a view of one."""
    node = value.producer()
    if node is None:
        return value.const_value is not None
    if node.op_type not in _VIEWS or node.domain != "":
        return False
    return all(one is None or is_constant(one) for one in node.inputs)


def constant_value(value: ir.Value, opset: int) -> Array:
    """The array of a value that `is_constant`.

    Raises:
        ModelError: a view on the way is invalid.
    """
    node = value.producer()
    if node is None:
        assert value.const_value is not None
        return value.const_value.numpy()
    known = {str(one.name): constant_value(one, opset) for one in node.inputs if one is not None}
    found = evaluate_node(ir.to_proto(node), known, opset)
    if found is None:
        raise ModelError(f"weight {value.name!r} cannot be computed: its {node.op_type} is invalid")
    return found[str(value.name)]
