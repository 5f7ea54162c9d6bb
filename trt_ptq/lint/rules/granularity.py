"""Per tensor or per channel: activations have one scale, weights one for each output channel."""

from __future__ import annotations

from collections.abc import Iterator

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph
from trt_ptq.lint.weighted_nodes import weighted_nodes


def per_channel_activations(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: built, and the convolution reads float. Weights from inputs: `runtime_weights`."""
    weights = {one.operands[1].dequantizer.node for one in weighted_nodes(graph) if one.operands[1].dequantizer}
    for one in graph.encoders:
        readers = {one.node, *(use.node for use in one.output.uses())}
        if one.per_channel and one.scale is not None and not one.on_constant and not readers & weights:
            yield Location(one.node, f"{one.scale.size} scales along axis {one.axis} of activation {one.data.name!r}")


def weight_axes(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: built, and Conv, MatMul and Gemm read float. ConvTranspose reads float in TensorRT-RTX whatever the axis;
    axis 1 is NVIDIA's."""
    for one in weighted_nodes(graph):
        weight = one.weight
        if weight is None or weight.dequantizer is None or not weight.dequantizer.per_channel:
            continue
        axis, wanted = graph.axis_in(weight.value, weight.dequantizer), one.output_axis(weight)
        if axis is not None and wanted is not None and axis != wanted:
            yield Location(one.node, f"weight quantized along axis {axis}; output channels are axis {wanted}")


def per_tensor_weights(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: per-tensor for activations and per-channel for weights gave the best accuracy. Seen: built in int8."""
    for one in weighted_nodes(graph):
        weight = one.weight
        if weight is None or weight.dequantizer is None:
            continue
        scale, axis = weight.dequantizer.scale, one.output_axis(weight)
        shape = weight.value.shape
        channels = shape[axis] if shape is not None and axis is not None else None
        if scale is not None and scale.size == 1 and channels != 1:
            yield Location(
                one.node, f"one scale for all {channels if isinstance(channels, int) else ''} output channels"
            )


RULES = (
    Rule(
        "activation-per-channel",
        "warning",
        "TensorRT has no such kernel: what reads the activation runs in float",
        "give the activation one scale; per-channel scales are for weights",
        per_channel_activations,
    ),
    Rule(
        "weight-axis",
        "warning",
        "a scale that differs within the sum cannot be applied after it: the operator runs in float",
        "quantize along output channels: Conv 0, ConvTranspose 1, Gemm 1 (0 with transB), MatMul its last axis",
        weight_axes,
    ),
    Rule(
        "weight-per-tensor",
        "warning",
        "less accurate: channels with small weights get few of the 255 steps",
        "one scale for each output channel (ONNX Runtime: per_channel=True)",
        per_tensor_weights,
    ),
)
