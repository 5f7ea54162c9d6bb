"""Per tensor or per channel: activations have one scale, weights one per output channel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.table.calibration_table import INT8_MAX
from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer, constant_tensor
from trt_ptq.lint.weighted_nodes import weighted_nodes


def per_channel_activations(graph: QuantizedGraph) -> Iterator[Location]:
    """Without weights that are inputs of the model: see `operands.runtime_weights`."""
    kernels = [weighted.operands[1].dequantizer for weighted in weighted_nodes(graph)]
    weights = {dequantizer.node for dequantizer in kernels if dequantizer}
    for quantizer in graph.encoders:
        nodes = {quantizer.node, *(use.node for use in quantizer.output.uses())}
        if quantizer.per_channel and quantizer.scale is not None and not quantizer.on_constant and not nodes & weights:
            detail = f"{quantizer.scale.size} scales along axis {quantizer.axis} of activation {quantizer.data.name!r}"
            yield Location(quantizer.node, detail)


def weight_axes(graph: QuantizedGraph) -> Iterator[Location]:
    for weighted in weighted_nodes(graph):
        weight = weighted.weight
        if weight is None or weight.dequantizer is None or not weight.dequantizer.per_channel:
            continue
        axis, output_axis = graph.axis_in(weight.value, weight.dequantizer), weighted.output_axis(weight)
        if axis is not None and output_axis is not None and axis != output_axis:
            detail = f"weight quantized along axis {axis}; its output-channel axis is {output_axis}"
            yield Location(weighted.node, detail)


def per_tensor_weights(graph: QuantizedGraph) -> Iterator[Location]:
    for weighted in weighted_nodes(graph):
        weight = weighted.weight
        if weight is None or weight.dequantizer is None:
            continue
        scale, axis = weight.dequantizer.scale, weighted.output_axis(weight)
        shape = weight.value.shape
        channels = shape[axis] if shape is not None and axis is not None else None
        if scale is not None and scale.size == 1 and channels != 1 and not _is_normalized(weight.dequantizer, axis):
            count = f"{channels} " if isinstance(channels, int) else ""
            yield Location(weighted.node, f"one scale for all {count}output channels")


def _is_normalized(dequantizer: Quantizer, axis: int | None) -> bool:
    """Whether every channel of the int8 weight uses all levels, or is zero: the ratios of channels are elsewhere.

    In the factored form for TensorRT-RTX they are in a Mul behind the convolution.
    """
    tensor = constant_tensor(dequantizer.data)
    if tensor is None or axis is None or dequantizer.dtype != ir.DataType.INT8 or axis >= len(tensor.shape):
        return False
    values = tensor.numpy().astype(np.int16)
    largest = np.abs(values).max(axis=tuple(other for other in range(values.ndim) if other != axis), initial=0)
    return bool(((largest >= INT8_MAX) | (largest == 0)).all())


RULES = (
    Rule(
        id="activation-per-channel",
        severity="warning",
        effect="TensorRT has no such kernel: the readers of the activation run in float",
        remedy="give the activation one scale; per-channel scales are for weights",
        evidence="Observed: the engine is built, and the convolution reads float.",
        check=per_channel_activations,
    ),
    Rule(
        id="weight-axis",
        severity="warning",
        effect="a scale that varies within the accumulation cannot be applied after it: the operator runs in float",
        remedy="quantize along output channels: Conv 0, ConvTranspose 1, Gemm 1 (0 with transB), MatMul its last axis",
        evidence="Observed: the engine is built, and Conv, MatMul and Gemm read float. In TensorRT-RTX ConvTranspose "
        "reads float for any axis; NVIDIA documents axis 1.",
        check=weight_axes,
    ),
    Rule(
        id="weight-per-tensor",
        severity="warning",
        effect="less accurate: channels with small weights use few of the 255 levels",
        remedy="use one scale per output channel (ONNX Runtime: per_channel=True)",
        evidence="NVIDIA: per-tensor scales for activations and per-channel scales for weights gave the best "
        "accuracy. Observed: built in int8.",
        check=per_tensor_weights,
    ),
)
