"""Integer types and zero points: TensorRT's INT8 is signed and symmetric."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import DEQUANTIZE, QuantizedGraph, is_linear

_FLOAT4_AND_8 = {ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1}
_INTEGERS_OF_TENSORRT = {ir.DataType.INT8, ir.DataType.INT4}
_OWN_RULES = {ir.DataType.UINT8, ir.DataType.INT32}
_ZERO_POINTS_ALONE = 1  # an int8 constant of one element is a zero point that an exporter shares through Identity
INTEGER_OPERATORS = {
    *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
    *("QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"),
    *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "QLinearWhere", "QAttention"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QEmbedLayerNormalization", "DynamicQuantizeLSTM"),
}


def zero_points(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: the parser refuses every zero point but 0."""
    for one in graph.encoders:
        if one.zero_point is not None and one.zero_point.size and one.zero_point.astype(float).any():
            values = sorted({int(value) for value in one.zero_point.ravel()})
            told = str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
            yield Location(one.node, f"zero point {told}")


def unsigned(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: activations in uint8 with zero point 0, or without one (uint8 by the ONNX standard), are built as int8;
    uint8 weights, uint8 inputs and `output_dtype` uint8 are refused."""
    for one in graph.encoders:
        if one.dtype == ir.DataType.UINT8:
            yield Location(one.node, "uint8" if one.has_zero_point else "no zero point: uint8 by the ONNX standard")


def integer_biases(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: refused ("input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8")."""
    for one in graph.quantizers:
        if not one.quantizes and ir.DataType.INT32 in (one.dtype, one.data.dtype):
            yield Location(one.node, "int32, dequantized")


def other_types(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: int16, uint4, float8e5m2 and float8e4m3fnuz are refused."""
    known = _INTEGERS_OF_TENSORRT | _FLOAT4_AND_8 | _OWN_RULES
    for one in graph.encoders:
        if one.dtype is not None and one.dtype not in known:
            yield Location(one.node, one.dtype.name.lower())


def low_precision(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: FP8 from compute capability 8.9 on, FP4 from 10.0 on, INT4 for weights alone."""
    for one in graph.encoders:
        if one.dtype in _FLOAT4_AND_8 or one.dtype == ir.DataType.INT4:
            yield Location(one.node, one.dtype.name.lower())
    for node in graph.nodes:
        if node.domain == "trt" and node.op_type.endswith("uantizeLinear"):
            yield Location(node, node.op_type)


def integer_operators(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: QLinearConv, ConvInteger and DynamicQuantizeLinear are refused; NVIDIA's parser has none of the list."""
    for node in graph.nodes:
        if node.op_type in INTEGER_OPERATORS:
            yield Location(node, node.op_type)


def computed_integers(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: Gather, Transpose, Reshape or Identity between an int8 constant and its DequantizeLinear is refused
    ("Quantized constant is only allowed before DQ")."""
    for node in graph.nodes:
        if is_linear(node) or node.op_type in INTEGER_OPERATORS:
            continue
        for value in node.inputs:
            tensor = None if value is None else ir.convenience.get_const_tensor(value)
            if tensor is not None and tensor.dtype == ir.DataType.INT8 and tensor.size > _ZERO_POINTS_ALONE:
                yield Location(
                    node, f"{node.op_type} reads the int8 constant {value.name!r}" if value else node.op_type
                )


RULES = (
    Rule(
        "zero-point",
        "error",
        "TensorRT refuses the model: it takes a zero point of 0 only",
        "quantize symmetrically (ONNX Runtime: ActivationSymmetric and WeightSymmetric true)",
        zero_points,
    ),
    Rule(
        "uint8",
        "error",
        "TensorRT refuses it, or takes it for int8, and then all values above half the range are clipped to half of it",
        "quantize to int8 with a zero point of 0 that is given (ONNX Runtime: activation_type and weight_type QInt8)",
        unsigned,
    ),
    Rule(
        "int32-bias",
        "error",
        "TensorRT refuses the model: it dequantizes 8 and 4 bits only",
        "keep biases in float (ONNX Runtime: QuantizeBias false)",
        integer_biases,
    ),
    Rule(
        "type",
        "error",
        "TensorRT refuses the model: it has no such quantized type",
        "quantize to int8",
        other_types,
    ),
    Rule(
        "low-precision",
        "note",
        "it builds only for GPUs that have it: FP8 from compute capability 8.9, FP4 from 10.0; INT4 is for weights",
        "nothing, if the model is for such a GPU",
        low_precision,
    ),
    Rule(
        "integer-operator",
        "error",
        "TensorRT's parser does not know the operator",
        f"export QuantizeLinear and {DEQUANTIZE} (ONNX Runtime: quantize_static with QuantFormat.QDQ)",
        integer_operators,
    ),
    Rule(
        "int8-constant",
        "error",
        "TensorRT refuses the model: an int8 constant may be read by DequantizeLinear alone",
        "put DequantizeLinear right behind the constant, and the operator behind that",
        computed_integers,
    ),
)
