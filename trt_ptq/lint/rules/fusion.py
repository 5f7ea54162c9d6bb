"""Q/DQ where it keeps TensorRT from making one kernel of several operators."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer
from trt_ptq.lint.weighted_nodes import CONVOLUTIONS, weighted_behind
from trt_ptq.qdq.residual import broadcasts

_JOIN_THE_CONVOLUTION = {
    *("BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("Elu", "Selu", "Tanh", "Softplus", "Mish", "Gelu", "Swish", "ThresholdedRelu"),
}


def before_activations(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: TensorRT fuses batch normalization and activation with the convolution; Q/DQ goes behind them. Seen: the
    convolution's result is rounded before the activation, in the activation's kernel."""
    for one in graph.quantizers:
        made = graph.maker(one.data)
        if one.quantizes or made is None or not made.quantizes:
            continue
        weighted = weighted_behind(graph, made.data)
        if weighted is None:
            continue
        for use in one.output.uses():
            if use.node.op_type in _JOIN_THE_CONVOLUTION:
                yield Location(made.node, f"between {weighted.op_type} and its {use.node.op_type}")


def double_residuals(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: quantize the residual input; with Q/DQ on the convolution's result too, convolution and Add are fused
    apart. Seen: one rounding more (TensorRT-RTX leaves the Add to the next kernel either way)."""
    for node in graph.nodes:
        if node.op_type != "Add" or node.domain != "":
            continue
        pairs = [_pair(graph, value) for value in node.inputs]
        convolutions = [one for one in pairs if one is not None and _only_for(graph, one, node)]
        if convolutions and all(one is not None for one in pairs) and pairs[0] is not pairs[1]:
            yield Location(node, f"both summands are quantized, the convolution's {convolutions[0].data.name!r} too")


def float_residuals(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: the type of the residual input decides on that of the fused convolution's result. Not to be seen in
    TensorRT-RTX, which leaves the Add to the next kernel."""
    for node in graph.nodes:
        if node.op_type != "Add" or node.domain != "" or not _is_quantized(graph, node.outputs[0]):
            continue
        if not all(graph.carries_data(value) and graph.dequantizer(value) is None for value in node.inputs):
            continue
        if broadcasts(node) or node.inputs[0] is node.inputs[1]:
            continue
        joined = [value for value in node.inputs if _int8_convolution(graph, value)]
        if joined:
            other = next(value for value in node.inputs if value is not joined[-1])
            yield Location(node, f"summand {other.name if other else ''!r} is float, the sum is quantized")


def unequal_concats(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: with different scales a convolution behind the Concat reads float, or its data is rounded twice if the
    Concat's result is quantized again; with one scale it reads int8."""
    for node in graph.nodes:
        found = [graph.dequantizer(value) for value in node.inputs] if node.op_type == "Concat" else []
        known = [one for one in found if one is not None and not one.on_constant]
        others = [one for one in known if not one.same_scale(known[0])]
        if others:
            scales = sorted({float(one.scale.ravel()[0]) for one in known if one.scale is not None})
            yield Location(node, f"inputs with scales from {scales[0]:.6g} to {scales[-1]:.6g}")


def _pair(graph: QuantizedGraph, value: ir.Value | None) -> Quantizer | None:
    """The QuantizeLinear whose DequantizeLinear makes `value`."""
    dequantize = graph.maker(value)
    quantize = graph.maker(dequantize.data) if dequantize is not None and not dequantize.quantizes else None
    return quantize if quantize is not None and quantize.quantizes and not quantize.on_constant else None


def _only_for(graph: QuantizedGraph, quantize: Quantizer, add: ir.Node) -> bool:
    """Whether a convolution's result is quantized for `add` alone."""
    weighted = weighted_behind(graph, quantize.data)
    if weighted is None or weighted.op_type not in CONVOLUTIONS or len(quantize.data.uses()) > 1:
        return False
    return all(last.node is add for use in quantize.output.uses() for last in use.node.outputs[0].uses())


def _int8_convolution(graph: QuantizedGraph, value: ir.Value | None) -> bool:
    """Whether `value` is the result of an INT8 convolution, which nothing else reads."""
    if value is None or len(value.uses()) != 1:
        return False
    weighted = weighted_behind(graph, value)
    return (
        weighted is not None
        and weighted.op_type == "Conv"
        and all(graph.dequantizer(operand) is not None for operand in weighted.inputs[:2])
    )


def _is_quantized(graph: QuantizedGraph, value: ir.Value) -> bool:
    """Whether `value`, or what an activation makes of it, is quantized."""
    return any(
        (graph.maker(use.node.outputs[0]) is not None and use.idx == 0)
        or (use.node.op_type in _JOIN_THE_CONVOLUTION and _is_quantized(graph, use.node.outputs[0]))
        for use in value.uses()
    )


RULES = (
    Rule(
        "before-activation",
        "warning",
        "the activation is not fused with its convolution, and its input is rounded: slower and less accurate",
        "move the pair behind the activation",
        before_activations,
    ),
    Rule(
        "double-residual",
        "warning",
        "the Add does not join the convolution's kernel, and its result is rounded once more",
        "quantize the shortcut alone: remove the pair between convolution and Add",
        double_residuals,
    ),
    Rule(
        "float-residual",
        "warning",
        "slower: the convolution that the Add joins has to write float",
        "quantize the shortcut too",
        float_residuals,
    ),
    Rule(
        "concat-scales",
        "warning",
        "the inputs cannot be joined as int8: what reads the Concat runs in float, or its data is rounded twice",
        "give all inputs the range of the Concat's output",
        unequal_concats,
    ),
)
