"""The names that tensors of a Q/DQ model have in the float model, which a TensorRT cache must use.

Between the tensor and its QuantizeLinear may stand nodes that a tool added: a Q/DQ pair, a Cast, or ours: a cast to
float16 or back, called `NAME.float16` or `NAME.float32`, and the sum of bias correction, called `NAME.corrected`.
"""

from __future__ import annotations

import re

import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of

CORRECTED = ".corrected"  # suffix of the name of a corrected sum
_PRECISION_SUFFIX = re.compile(r"\.float(16|32)(\.\d+)?")
_CORRECTED_SUFFIX = re.compile(re.escape(CORRECTED) + r"(\.\d+)?")
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE, None})


def float_name(node: ir.Node) -> str:
    """The name that the input of a QuantizeLinear has in the float model."""
    value = node.inputs[0]
    assert value is not None
    if len(value.uses()) == 1 and not value.is_graph_input():
        for use in node.outputs[0].uses():
            output = use.node.outputs[0]
            if use.node.op_type == "DequantizeLinear" and output.is_graph_output():
                return name_of(output)  # ONNX Runtime renamed the output on quantization
    while True:
        name, producer = name_of(value), value.producer()
        source = producer.inputs[0] if producer is not None and producer.inputs else None
        if producer is None or source is None:
            return name
        if producer.op_type in ("DequantizeLinear", "QuantizeLinear"):
            value = source
        elif producer.op_type == "Cast":
            original = _without(_PRECISION_SUFFIX, name)
            if producer.name == name != original and original != name_of(source):
                return original  # the cast of the float model that gives `original` was skipped
            if original == name and source.dtype not in _FLOATS:
                return name  # a cast of the float model: `source` has integers
            value = source
        elif producer.op_type == "Add" and producer.name == name and _is_sum_of(name, source):
            value = source
        else:
            return _output_name(value)


def _without(suffix: re.Pattern[str], name: str) -> str:
    """`name` without `suffix` at its end."""
    matches = list(suffix.finditer(name))
    return name[: matches[-1].start()] if matches and matches[-1].end() == len(name) else name


def _is_sum_of(name: str, source: ir.Value) -> bool:
    """Whether `name` is our name for the corrected sum of `source`; if it is an output, they have swapped names."""
    return name_of(source) in {_without(_CORRECTED_SUFFIX, name)} - {name}


def _output_name(value: ir.Value) -> str:
    """The name of the graph output that our float16 conversion took from `value`, which ends in a cast to it."""
    name = name_of(value)
    original = _without(_PRECISION_SUFFIX, name)
    for use in value.uses():
        output = use.node.outputs[0]
        if use.node.op_type == "Cast" and output.is_graph_output() and name_of(output) == original:
            return original
    return name
