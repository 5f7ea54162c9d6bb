"""Scales: what numbers, how many, and in what shape."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trt_ptq.calibrators.table.calibration_table import SMALLEST_SCALE
from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer


def unusable_scales(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: zero, negative and NaN are refused; infinite and denormal scales are built without a word."""
    for one in graph.encoders:
        if one.scale is None:
            continue
        scales = one.scale.astype(np.float32).ravel()
        bad = scales[~((scales >= SMALLEST_SCALE) & np.isfinite(scales))]
        if bad.size:
            many = f" and {bad.size - 1} more of {scales.size}" if bad.size > 1 else ""
            yield Location(one.node, f"scale {bad[0]:g}{many}")


def computed_scales(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: a scale computed from an input crashed the builder's process; such a zero point was refused. A scale
    computed from constants is built as a constant."""
    for one in graph.quantizers:
        for index, what in ((1, "scale"), (2, "zero point")):
            if len(one.node.inputs) > index and graph.carries_data(one.node.inputs[index]):
                yield Location(one.node, f"{what} computed from the model's inputs")


def miscounted_scales(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: refused ("number of scales is not equal to the number of output channels", "must have the same volume",
    "ScaleMode is illegal")."""
    for one in graph.quantizers:
        wrong = _miscount(one)
        if wrong:
            yield Location(one.node, wrong)


def _miscount(one: Quantizer) -> str | None:
    if one.scale is None or one.block_size:
        return None
    if one.zero_point is not None and one.zero_point.size != one.scale.size:
        return f"{one.scale.size} scales, {one.zero_point.size} zero points"
    if one.scale.ndim > 1:
        return f"scales in {one.scale.ndim} axes"
    length = one.data.shape[one.axis] if one.data.shape is not None and one.axis < len(one.data.shape) else None
    if one.per_channel and isinstance(length, int) and length != one.scale.size:
        return f"{one.scale.size} scales for {length} channels along axis {one.axis}"
    return None


def one_element_scales(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: "a scalar for per-tensor quantization, a 1D tensor for per-channel quantization". Seen: with a scale of
    shape [1] in the DequantizeLinear of an activation, the convolution reads float (a MatMul still read int8)."""
    for one in graph.quantizers:
        if not one.quantizes and not one.on_constant and one.scale is not None and one.scale.shape == (1,):
            yield Location(one.node, "a scale of shape [1] on an activation")


def blocked_integers(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA documents blocks for 4-bit and FP8 types. Seen: a Gemm with quantized data and blocked int8 weights was
    refused; for a MatMul the engine multiplies int8 and applies scales after the product, where a scale that differs
    within the sum cannot be right."""
    for one in graph.encoders:
        if one.block_size and one.dtype is not None and one.dtype.name == "INT8":
            yield Location(one.node, f"int8 in blocks of {one.block_size}")


def scales_before_axis(graph: QuantizedGraph) -> Iterator[Location]:
    """The axis came with opset 13. Seen: built as if the axis were 0."""
    for one in graph.quantizers:
        if one.per_channel and graph.opset < 13:
            yield Location(one.node, f"{one.scale.size if one.scale is not None else 0} scales in opset {graph.opset}")


RULES = (
    Rule(
        "scale",
        "error",
        "TensorRT refuses a zero, negative or NaN scale; with an infinite or denormal one the tensor is lost",
        "calibrate again: a tensor that is always zero, or data with NaN or infinity, gives no scale",
        unusable_scales,
    ),
    Rule(
        "computed-scale",
        "error",
        "TensorRT wants constants: it refuses the model or crashes",
        "calibrate: static scales in place of dynamic quantization",
        computed_scales,
    ),
    Rule(
        "scale-count",
        "error",
        "TensorRT refuses the model",
        "give one scale, or one for each channel along the axis, and as many zero points",
        miscounted_scales,
    ),
    Rule(
        "scale-vector",
        "warning",
        "TensorRT takes it for per-channel quantization, which activations cannot have: a convolution runs in float",
        "make the scale and zero point scalars (shape [])",
        one_element_scales,
    ),
    Rule(
        "int8-blocks",
        "error",
        "TensorRT refuses the model, or multiplies without the scales of the blocks",
        "quantize int8 weights with one scale for each output channel",
        blocked_integers,
    ),
    Rule(
        "opset",
        "error",
        "before opset 13 there is no per-channel scale: runtimes refuse the model, or guess the axis",
        "export with opset 13 or newer",
        scales_before_axis,
    ),
)
