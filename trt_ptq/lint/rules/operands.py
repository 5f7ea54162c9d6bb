"""Weighted operators run in INT8 only if both operands are quantized."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph
from trt_ptq.lint.weighted_nodes import WEIGHTED, weighted_nodes


def float_operands(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: Conv with float weights, and MatMul with one of two activations quantized, read float."""
    for one in weighted_nodes(graph):
        bare = [operand for operand in one.operands if operand.dequantizer is None]
        if len(bare) == 1 and (bare[0].carries_data is False or one.weight is None):
            what = "activation" if bare[0].carries_data else "weight"
            yield Location(one.node, f"{what} {bare[0].value.name!r} is float, the other operand is quantized")


def weights_alone(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: Conv and MatMul with int8 weights and float data read float, and dequantize the weight in each inference.
    Of INT4 and FP4 weights that is the usual way, so they are left out."""
    for one in weighted_nodes(graph):
        weight = one.weight
        data = next((operand for operand in one.operands if operand is not weight), None)
        if weight is None or weight.dequantizer is None or data is None or data.dequantizer is not None:
            continue
        if weight.dequantizer.dtype in (ir.DataType.INT8, ir.DataType.UINT8):
            yield Location(one.node, f"weight is quantized, activation {data.value.name!r} is float")


def mixed_types(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: a MatMul of int8 and FP8 is refused by the builder; one of int8 and INT4 is built."""
    for one in weighted_nodes(graph):
        types = [operand.dequantizer.dtype for operand in one.operands if operand.dequantizer is not None]
        known = [dtype for dtype in types if dtype is not None]
        if len({dtype.is_integer() for dtype in known}) > 1:
            yield Location(one.node, f"operands in {' and '.join(dtype.name.lower() for dtype in known)}")


def runtime_weights(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: a convolution with an input of the model as its weight reads int8, and quantizes the weight each time."""
    for one in weighted_nodes(graph):
        kernel = one.operands[1]
        if one.node.op_type.startswith("Conv") and kernel.carries_data and kernel.dequantizer is not None:
            yield Location(one.node, f"weight {kernel.value.name!r} depends on the model's inputs")


def small_biases(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: an int8 bias is dequantized behind the convolution, so nothing is gained."""
    for node in graph.nodes:
        if node.op_type in WEIGHTED and len(node.inputs) > 2:
            found = graph.dequantizer(node.inputs[2])
            if found is not None and ir.DataType.INT32 not in (found.dtype, found.data.dtype):
                yield Location(node, "bias rounded to 8 bits")


RULES = (
    Rule(
        "float-operand",
        "warning",
        "slower and less accurate: the operator runs in float, on values that were rounded for nothing",
        "quantize both operands, or neither",
        float_operands,
    ),
    Rule(
        "weight-only",
        "warning",
        "the operator runs in float, and dequantizes its weight in each inference",
        "quantize its activation too, or keep the weight float; leave it if only the size matters",
        weights_alone,
    ),
    Rule(
        "mixed-operands",
        "error",
        "TensorRT refuses the model: it has no kernel for an integer and a floating-point operand",
        "quantize both operands to the same type",
        mixed_types,
    ),
    Rule(
        "runtime-weight",
        "warning",
        "slower: the weight is quantized anew in each inference",
        "make the weight a constant (fold constants on export)",
        runtime_weights,
    ),
    Rule(
        "bias",
        "warning",
        "less accurate, and no faster: TensorRT adds biases in float",
        "keep biases in float",
        small_biases,
    ),
)
