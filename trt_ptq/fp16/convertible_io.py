"""Which inputs and outputs of a node can be float16: asked of ONNX's operator schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx import defs

TYPE_CONVERTING_OPS = {"Cast", "QuantizeLinear", "DequantizeLinear"}  # take and make what their neighbours want

_FLOAT16 = "tensor(float16)"


@dataclass(frozen=True)
class ConvertibleIO:
    """Positions of the float32 inputs and outputs that turn to float16; the others stay float32."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


def is_float32(value: ir.Value | None) -> bool:
    """Whether `value` is a float32 tensor; a sequence of them is not."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT


def convertible_io(node: ir.Node, opsets: Mapping[str, int]) -> ConvertibleIO | str:
    """What of `node` can be float16 by the schemas of `opsets`, or why it must stay as it is.

    An output turns where it shares its type with an input that turns. Scales of Resize, boxes of NonMaxSuppression
    and whatever else is float32 alone stays so.
    """
    if any(one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for one in node.attributes.values()):
        return "its body stays float32"
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.name and not (isinstance(value.type, ir.TensorType) and value.dtype):
            return f"{value.name!r} is no tensor of a known type"
    try:
        schema = defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except defs.SchemaError:
        return f"{node.domain or 'ONNX'} has no operator {node.op_type} whose types are known"
    takes = {index: _formal(schema.inputs, index) for index, one in enumerate(node.inputs) if is_float32(one)}
    makes = {index: _formal(schema.outputs, index) for index, one in enumerate(node.outputs) if is_float32(one)}
    inputs = frozenset(index for index, formal in takes.items() if _FLOAT16 in formal.types)
    following = {takes[index].type_str for index in inputs}
    outputs = frozenset(index for index, formal in makes.items() if formal.type_str in following)
    if any(_FLOAT16 in formal.types for index, formal in makes.items() if index not in outputs):
        return "the type of its output does not follow from its inputs"
    if not inputs:
        return f"{node.op_type} takes no float16"
    return ConvertibleIO(inputs, outputs)


def _formal(formals: Sequence[defs.OpSchema.FormalParameter], index: int) -> defs.OpSchema.FormalParameter:
    """The parameter at `index`; the last one may stand for any number."""
    return formals[min(index, len(formals) - 1)]
