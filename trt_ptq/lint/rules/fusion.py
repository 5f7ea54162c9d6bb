"""Q/DQ that prevents TensorRT from fusing operators into one kernel."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trt_ptq.analysis.op_types import CONVOLUTIONS
from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer
from trt_ptq.lint.weighted_nodes import source_weighted_node
from trt_ptq.qdq.residual import broadcasts

_OPS_FUSED_INTO_CONVOLUTION = {
    *("BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("Elu", "Selu", "Tanh", "Softplus", "Mish", "Gelu", "Swish", "ThresholdedRelu"),
}


def before_activations(graph: QuantizedGraph) -> Iterator[Location]:
    for dequantize in graph.quantizers:
        quantize = graph.source_quantizer(dequantize.data)
        if dequantize.is_quantize or quantize is None or not quantize.is_quantize:
            continue
        weighted = source_weighted_node(graph, quantize.data)
        if weighted is None:
            continue
        for use in dequantize.output.uses():
            if use.node.op_type in _OPS_FUSED_INTO_CONVOLUTION:
                yield Location(quantize.node, f"between {weighted.op_type} and its {use.node.op_type}")


def double_residuals(graph: QuantizedGraph) -> Iterator[Location]:
    for node in graph.nodes:
        if node.op_type != "Add" or node.domain != "":
            continue
        quantizers = [_activation_quantizer(graph, value) for value in node.inputs]
        convolutions = [
            quantize for quantize in quantizers if quantize is not None and _only_for_add(graph, quantize, node)
        ]
        both_quantized = all(quantize is not None for quantize in quantizers)
        if convolutions and both_quantized and quantizers[0] is not quantizers[1]:
            detail = f"both inputs are quantized, including the convolution's {convolutions[0].data.name!r}"
            yield Location(node, detail)


def float_residuals(graph: QuantizedGraph) -> Iterator[Location]:
    for node in graph.nodes:
        if node.op_type != "Add" or node.domain != "" or not _is_quantized(graph, node.outputs[0]):
            continue
        if not all(graph.is_activation(value) and graph.dequantizer(value) is None for value in node.inputs):
            continue
        if broadcasts(node) or node.inputs[0] is node.inputs[1]:
            continue
        fused = [value for value in node.inputs if _is_from_int8_convolution(graph, value)]
        if fused:
            shortcut = next(value for value in node.inputs if value is not fused[-1])
            yield Location(node, f"input {shortcut.name if shortcut else ''!r} is float, the sum is quantized")


def unequal_concats(graph: QuantizedGraph) -> Iterator[Location]:
    for node in graph.nodes:
        inputs = [graph.dequantizer(value) for value in node.inputs] if node.op_type == "Concat" else []
        dequantizers = [quantizer for quantizer in inputs if quantizer is not None and not quantizer.on_constant]
        if any(not quantizer.same_scale(dequantizers[0]) for quantizer in dequantizers):
            scales = sorted(float(other.scale.ravel()[0]) for other in dequantizers if other.scale is not None)
            yield Location(node, f"inputs with scales from {scales[0]:.6g} to {scales[-1]:.6g}")


def _activation_quantizer(graph: QuantizedGraph, value: ir.Value | None) -> Quantizer | None:
    """The QuantizeLinear of the pair that `value` comes from; None if it comes from no pair on an activation."""
    dequantize = graph.source_quantizer(value)
    if dequantize is None or dequantize.is_quantize:
        return None
    quantize = graph.source_quantizer(dequantize.data)
    return quantize if quantize is not None and quantize.is_quantize and not quantize.on_constant else None


def _only_for_add(graph: QuantizedGraph, quantize: Quantizer, add: ir.Node) -> bool:
    """Whether `quantize` quantizes the output of a convolution for `add` alone."""
    weighted = source_weighted_node(graph, quantize.data)
    if weighted is None or weighted.op_type not in CONVOLUTIONS or len(quantize.data.uses()) > 1:
        return False
    dequantized = [use.node.outputs[0] for use in quantize.output.uses()]
    return all(use.node is add for value in dequantized for use in value.uses())


def _is_from_int8_convolution(graph: QuantizedGraph, value: ir.Value | None) -> bool:
    """Whether `value` is the output of an INT8 convolution, with no other reader."""
    if value is None or len(value.uses()) != 1:
        return False
    weighted = source_weighted_node(graph, value)
    return (
        weighted is not None
        and weighted.op_type == "Conv"
        and all(graph.dequantizer(operand) is not None for operand in weighted.inputs[:2])
    )


def _is_quantized(graph: QuantizedGraph, value: ir.Value) -> bool:
    """Whether `value` is quantized, possibly after an activation function."""
    return any(
        (graph.source_quantizer(use.node.outputs[0]) is not None and use.idx == 0)
        or (use.node.op_type in _OPS_FUSED_INTO_CONVOLUTION and _is_quantized(graph, use.node.outputs[0]))
        for use in value.uses()
    )


RULES = (
    Rule(
        id="before-activation",
        severity="warning",
        effect="the activation is not fused with its convolution, and its input is rounded: slower and less accurate",
        remedy="move the pair behind the activation",
        evidence="NVIDIA: TensorRT fuses batch normalization and activation with the convolution; Q/DQ belongs behind "
        "them. Observed: the output of the convolution is rounded before the activation, in the activation's "
        "kernel.",
        check=before_activations,
    ),
    Rule(
        id="double-residual",
        severity="warning",
        effect="the Add is not fused into the convolution, and its input is rounded once more",
        remedy="quantize only the shortcut: remove the pair between convolution and Add",
        evidence="NVIDIA: quantize the residual input; with Q/DQ on the output of the convolution too, convolution "
        "and Add are not fused. Observed: one more rounding (TensorRT-RTX leaves the Add to the next kernel "
        "in both cases).",
        check=double_residuals,
    ),
    Rule(
        id="float-residual",
        severity="warning",
        effect="slower: the convolution that the Add is fused into has to write float",
        remedy="quantize the shortcut too",
        evidence="NVIDIA: the type of the residual input determines the output type of the fused convolution. Cannot "
        "be observed in TensorRT-RTX, which leaves the Add to the next kernel.",
        check=float_residuals,
    ),
    Rule(
        id="concat-scales",
        severity="warning",
        effect="the inputs cannot be concatenated as int8: the readers run in float, or the data is rounded twice",
        remedy="give all inputs the range of the Concat's output",
        evidence="Observed: with different scales a convolution behind the Concat reads float, or its input is "
        "rounded twice if the output of the Concat is quantized again; with one scale it reads int8.",
        check=unequal_concats,
    ),
)
