"""Which inputs and outputs of a node can be float16, according to ONNX's operator schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx import defs

from trt_ptq.analysis.dataflow import bodies

TYPE_CONVERTING_OPS = {"Cast", "QuantizeLinear", "DequantizeLinear"}  # their types follow those of their neighbors

_FLOAT16 = "tensor(float16)"


@dataclass(frozen=True)
class ConvertibleIO:
    """Indices of the float32 inputs and outputs of a node that become float16; the others stay float32."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


def is_float32(value: ir.Value | None) -> bool:
    """Whether `value` is a float32 tensor; a sequence of them is not."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT


def convertible_io(node: ir.Node, opsets: Mapping[str, int]) -> ConvertibleIO | str:
    """The inputs and outputs of `node` that can be float16, or why none can.

    An output becomes float16 if the schema ties its type to an input that does. Inputs that are always float32, such
    as the scales of Resize and the boxes of NonMaxSuppression, stay float32.

    Args:
        node: The node.
        opsets: Versions of the operator sets that the model imports, by domain.
    """
    if any(bodies(node)):
        return "its body stays float32"
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.name and not (isinstance(value.type, ir.TensorType) and value.dtype):
            return f"{value.name!r} is not a tensor of a known type"
    try:
        schema = defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except defs.SchemaError:
        return f"{node.op_type} of {node.domain or 'ONNX'} has no known schema"
    float_inputs = {
        index: _formal(schema.inputs, index) for index, value in enumerate(node.inputs) if is_float32(value)
    }
    float_outputs = {
        index: _formal(schema.outputs, index) for index, value in enumerate(node.outputs) if is_float32(value)
    }
    inputs = frozenset(index for index, formal in float_inputs.items() if _FLOAT16 in formal.types)
    type_variables = {float_inputs[index].type_str for index in inputs}
    outputs = frozenset(index for index, formal in float_outputs.items() if formal.type_str in type_variables)
    if any(_FLOAT16 in formal.types for index, formal in float_outputs.items() if index not in outputs):
        return "the type of its output does not depend on its inputs"
    if not inputs:
        return f"{node.op_type} does not support float16"
    return ConvertibleIO(inputs, outputs)


def _formal(formals: Sequence[defs.OpSchema.FormalParameter], index: int) -> defs.OpSchema.FormalParameter:
    """The formal parameter at `index`; the last one may be variadic."""
    return formals[min(index, len(formals) - 1)]
