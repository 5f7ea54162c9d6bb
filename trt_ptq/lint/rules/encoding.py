"""Integer types and zero points: TensorRT's INT8 is signed and symmetric."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, is_quantizer
from trt_ptq.onnx_io.quantized_ops import INTEGER_OPS

_FP8_AND_FP4 = {ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1}
_SUPPORTED_INTEGERS = {ir.DataType.INT8, ir.DataType.INT4}
_TYPES_WITH_RULES = {ir.DataType.UINT8, ir.DataType.INT32}
_ZERO_POINT_SIZE = 1  # an int8 constant of one element is a zero point that an exporter shares through Identity


def zero_points(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.encoders:
        zero_point = quantizer.zero_point
        if zero_point is not None and zero_point.size and zero_point.astype(float).any():
            values = sorted({int(value) for value in zero_point.ravel()})
            text = str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
            yield Location(quantizer.node, f"zero point {text}")


def unsigned(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.encoders:
        if quantizer.dtype == ir.DataType.UINT8:
            detail = "uint8" if quantizer.has_zero_point else "no zero point: uint8 by the ONNX standard"
            yield Location(quantizer.node, detail)


def integer_biases(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        if not quantizer.is_quantize and ir.DataType.INT32 in (quantizer.dtype, quantizer.data.dtype):
            yield Location(quantizer.node, "dequantizes int32")


def unsupported_types(graph: QuantizedGraph) -> Iterator[Location]:
    known = _SUPPORTED_INTEGERS | _FP8_AND_FP4 | _TYPES_WITH_RULES
    for quantizer in graph.encoders:
        if quantizer.dtype is not None and quantizer.dtype not in known:
            yield Location(quantizer.node, quantizer.dtype.name.lower())


def low_precision(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.encoders:
        if quantizer.dtype in _FP8_AND_FP4 or quantizer.dtype == ir.DataType.INT4:
            yield Location(quantizer.node, quantizer.dtype.name.lower())
    for node in graph.nodes:
        if node.domain == "trt" and node.op_type.endswith("uantizeLinear"):
            yield Location(node, node.op_type)


def integer_operators(graph: QuantizedGraph) -> Iterator[Location]:
    for node in graph.nodes:
        if node.op_type in INTEGER_OPS:
            yield Location(node, node.op_type)


def read_int8_constants(graph: QuantizedGraph) -> Iterator[Location]:
    for node in graph.nodes:
        if is_quantizer(node) or node.op_type in INTEGER_OPS:
            continue
        for value in node.inputs:
            tensor = None if value is None else ir.convenience.get_const_tensor(value)
            if tensor is not None and tensor.dtype == ir.DataType.INT8 and tensor.size > _ZERO_POINT_SIZE:
                yield Location(
                    node, f"{node.op_type} reads the int8 constant {value.name!r}" if value else node.op_type
                )


RULES = (
    Rule(
        id="zero-point",
        severity="error",
        effect="TensorRT refuses the model: it supports only a zero point of 0",
        remedy="quantize symmetrically (ONNX Runtime: ActivationSymmetric and WeightSymmetric true)",
        evidence="Observed: the parser refuses any zero point other than 0.",
        check=zero_points,
    ),
    Rule(
        id="uint8",
        severity="error",
        effect="TensorRT refuses it, or treats it as int8 and clips all values above half of the range",
        remedy="quantize to int8 with an explicit zero point of 0 (ONNX Runtime: activation_type and weight_type "
        "QInt8)",
        evidence="Observed: uint8 activations with zero point 0, or without one (uint8 by the ONNX standard), are "
        "built as int8; uint8 weights, uint8 inputs and `output_dtype` uint8 are refused.",
        check=unsigned,
    ),
    Rule(
        id="int32-bias",
        severity="error",
        effect="TensorRT refuses the model: it dequantizes only 8-bit and 4-bit types",
        remedy="keep biases in float (ONNX Runtime: QuantizeBias false)",
        evidence='Observed: refused ("input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8").',
        check=integer_biases,
    ),
    Rule(
        id="type",
        severity="error",
        effect="TensorRT refuses the model: it does not support the quantized type",
        remedy="quantize to int8",
        evidence="Observed: int16, uint4, float8e5m2 and float8e4m3fnuz are refused.",
        check=unsupported_types,
    ),
    Rule(
        id="low-precision",
        severity="note",
        effect="it runs only on GPUs that support the type: FP8 from compute capability 8.9, FP4 from 10.0; INT4 is "
        "for weights",
        remedy="nothing, if the model is for such a GPU",
        evidence="NVIDIA: FP8 requires compute capability 8.9, FP4 10.0; INT4 is supported for weights only.",
        check=low_precision,
    ),
    Rule(
        id="integer-operator",
        severity="error",
        effect="TensorRT's parser does not support the operator",
        remedy="export QuantizeLinear and DequantizeLinear (ONNX Runtime: quantize_static with QuantFormat.QDQ)",
        evidence="Observed: QLinearConv, ConvInteger and DynamicQuantizeLinear are refused. NVIDIA's list of "
        "supported operators has none of these.",
        check=integer_operators,
    ),
    Rule(
        id="int8-constant",
        severity="error",
        effect="TensorRT refuses the model: only DequantizeLinear may read an int8 constant",
        remedy="move DequantizeLinear directly behind the constant, before the operator",
        evidence="Observed: Gather, Transpose, Reshape or Identity between an int8 constant and its DequantizeLinear "
        'is refused ("Quantized constant is only allowed before DQ").',
        check=read_int8_constants,
    ),
)
