"""Scales: their values, number and shape."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trt_ptq.calibrators.table.calibration_table import SMALLEST_SCALE
from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer


def unusable_scales(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.encoders:
        if quantizer.scale is None:
            continue
        scales = quantizer.scale.astype(np.float32).ravel()
        unusable = scales[~((scales >= SMALLEST_SCALE) & np.isfinite(scales))]
        if unusable.size:
            others = f" and {unusable.size - 1} more of {scales.size}" if unusable.size > 1 else ""
            yield Location(quantizer.node, f"scale {unusable[0]:g}{others}")


def computed_scales(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        for index, kind in ((1, "scale"), (2, "zero point")):
            if len(quantizer.node.inputs) > index and graph.is_activation(quantizer.node.inputs[index]):
                yield Location(quantizer.node, f"{kind} computed from the model's inputs")


def wrong_scale_counts(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        mismatch = _count_mismatch(quantizer)
        if mismatch:
            yield Location(quantizer.node, mismatch)


def _count_mismatch(quantizer: Quantizer) -> str | None:
    scale, zero_point, axis = quantizer.scale, quantizer.zero_point, quantizer.axis
    if scale is None or quantizer.block_size:
        return None
    if zero_point is not None and zero_point.size != scale.size:
        return f"{scale.size} scales, {zero_point.size} zero points"
    if scale.ndim > 1:
        return f"scales in {scale.ndim} axes"
    shape = quantizer.data.shape
    channels = shape[axis] if shape is not None and axis < len(shape) else None
    if quantizer.per_channel and isinstance(channels, int) and channels != scale.size:
        return f"{scale.size} scales for {channels} channels along axis {axis}"
    return None


def one_element_scales(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        is_activation = not quantizer.is_quantize and not quantizer.on_constant
        if is_activation and quantizer.scale is not None and quantizer.scale.shape == (1,):
            yield Location(quantizer.node, "a scale of shape [1] on an activation")


def int8_blocks(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.encoders:
        if quantizer.block_size and quantizer.dtype is not None and quantizer.dtype.name == "INT8":
            yield Location(quantizer.node, f"int8 in blocks of {quantizer.block_size}")


def scales_before_axis(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        if quantizer.per_channel and graph.opset < 13:
            count = quantizer.scale.size if quantizer.scale is not None else 0
            yield Location(quantizer.node, f"{count} scales in opset {graph.opset}")


RULES = (
    Rule(
        id="scale",
        severity="error",
        effect="TensorRT refuses a zero, negative or NaN scale; an infinite or denormal scale destroys the tensor",
        remedy="calibrate again: a tensor that is always zero, or data with NaN or infinity, yields no scale",
        evidence="Observed: zero, negative and NaN scales are refused; infinite and denormal scales are built without "
        "a warning.",
        check=unusable_scales,
    ),
    Rule(
        id="computed-scale",
        severity="error",
        effect="TensorRT requires constants: it refuses the model or crashes",
        remedy="calibrate, to get static scales instead of dynamic quantization",
        evidence="Observed: a scale computed from an input crashed the builder's process; a zero point computed from "
        "an input was refused. A scale computed from constants is built as a constant.",
        check=computed_scales,
    ),
    Rule(
        id="scale-count",
        severity="error",
        effect="TensorRT refuses the model",
        remedy="use one scale, or one per channel along the axis, and as many zero points",
        evidence='Observed: refused ("number of scales is not equal to the number of output channels", "must have the '
        'same volume", "ScaleMode is illegal").',
        check=wrong_scale_counts,
    ),
    Rule(
        id="scale-vector",
        severity="warning",
        effect="TensorRT interprets it as per-channel quantization, which activations do not support: a convolution "
        "runs in float",
        remedy="make the scale and zero point scalars (shape [])",
        evidence='NVIDIA: "a scalar for per-tensor quantization, a 1D tensor for per-channel quantization". Observed: '
        "with a scale of shape [1] in the DequantizeLinear of an activation, a convolution reads float (a "
        "MatMul still reads int8).",
        check=one_element_scales,
    ),
    Rule(
        id="int8-blocks",
        severity="error",
        effect="TensorRT refuses the model, or multiplies without the block scales",
        remedy="quantize int8 weights with one scale per output channel",
        evidence="NVIDIA documents block quantization for 4-bit and FP8 types. Observed: a Gemm with quantized "
        "activations and blocked int8 weights was refused; for a MatMul the engine multiplies int8 and "
        "applies scales after the product, which is wrong for scales that vary within the sum.",
        check=int8_blocks,
    ),
    Rule(
        id="opset",
        severity="error",
        effect="before opset 13 there are no per-channel scales: runtimes refuse the model, or guess the axis",
        remedy="export with opset 13 or newer",
        evidence="ONNX introduced the axis with opset 13. Observed: built as if the axis were 0.",
        check=scales_before_axis,
    ),
)
