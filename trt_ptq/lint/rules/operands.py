"""Weighted operators run in INT8 only if both operands are quantized."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trt_ptq.analysis.op_types import WEIGHTED_OPS
from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph
from trt_ptq.lint.weighted_nodes import weighted_nodes


def float_operands(graph: QuantizedGraph) -> Iterator[Location]:
    for weighted in weighted_nodes(graph):
        unquantized = [operand for operand in weighted.operands if operand.dequantizer is None]
        if len(unquantized) == 1 and (unquantized[0].is_activation is False or weighted.weight is None):
            kind = "activation" if unquantized[0].is_activation else "weight"
            detail = f"{kind} {unquantized[0].value.name!r} is float, the other operand is quantized"
            yield Location(weighted.node, detail)


def weight_only(graph: QuantizedGraph) -> Iterator[Location]:
    """Without INT4 and FP4 weights, for which this is the usual format."""
    for weighted in weighted_nodes(graph):
        weight = weighted.weight
        data = next((operand for operand in weighted.operands if operand is not weight), None)
        if weight is None or weight.dequantizer is None or data is None or data.dequantizer is not None:
            continue
        if weight.dequantizer.dtype in (ir.DataType.INT8, ir.DataType.UINT8):
            yield Location(weighted.node, f"weight is quantized, activation {data.value.name!r} is float")


def mixed_types(graph: QuantizedGraph) -> Iterator[Location]:
    for weighted in weighted_nodes(graph):
        types = [operand.dequantizer.dtype for operand in weighted.operands if operand.dequantizer is not None]
        known = [dtype for dtype in types if dtype is not None]
        if len({dtype.is_integer() for dtype in known}) > 1:
            yield Location(weighted.node, f"operands in {' and '.join(dtype.name.lower() for dtype in known)}")


def runtime_weights(graph: QuantizedGraph) -> Iterator[Location]:
    for weighted in weighted_nodes(graph):
        kernel = weighted.operands[1]
        if weighted.node.op_type.startswith("Conv") and kernel.is_activation and kernel.dequantizer is not None:
            yield Location(weighted.node, f"weight {kernel.value.name!r} depends on the model's inputs")


def quantized_biases(graph: QuantizedGraph) -> Iterator[Location]:
    for node in graph.nodes:
        if node.op_type in WEIGHTED_OPS and len(node.inputs) > 2:
            dequantizer = graph.dequantizer(node.inputs[2])
            if dequantizer is not None and ir.DataType.INT32 not in (dequantizer.dtype, dequantizer.data.dtype):
                yield Location(node, "bias rounded to 8 bits")


RULES = (
    Rule(
        id="float-operand",
        severity="warning",
        effect="slower and less accurate: the operator runs in float, on needlessly rounded values",
        remedy="quantize both operands, or neither",
        evidence="Observed: Conv with float weights, and MatMul with one of two activations quantized, read float.",
        check=float_operands,
    ),
    Rule(
        id="weight-only",
        severity="warning",
        effect="the operator runs in float and dequantizes its weight in each inference",
        remedy="quantize its activation too, or keep the weight in float; ignore this if only the size matters",
        evidence="Observed: Conv and MatMul with int8 weights and float activations read float, and dequantize the "
        "weight in each inference.",
        check=weight_only,
    ),
    Rule(
        id="mixed-operands",
        severity="error",
        effect="TensorRT refuses the model: it has no kernel for an integer and a floating-point operand",
        remedy="quantize both operands to the same type",
        evidence="Observed: the builder refuses a MatMul of int8 and FP8; one of int8 and INT4 is built.",
        check=mixed_types,
    ),
    Rule(
        id="runtime-weight",
        severity="warning",
        effect="slower: the weight is quantized again in each inference",
        remedy="make the weight a constant (fold constants on export)",
        evidence="Observed: a convolution whose weight is an input of the model reads int8, and quantizes the weight "
        "in each inference.",
        check=runtime_weights,
    ),
    Rule(
        id="bias",
        severity="warning",
        effect="less accurate, and no faster: TensorRT adds biases in float",
        remedy="keep biases in float",
        evidence="Observed: an int8 bias is dequantized behind the convolution, which saves nothing.",
        check=quantized_biases,
    ),
)
