"""Q/DQ where rounding costs accuracy and no kernel gains from it."""

from __future__ import annotations

from collections.abc import Iterator

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph

_STAY_HIGH = {
    *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
    *("RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"),
    *("Exp", "Log", "Erf", "Gelu", "Pow", "Sqrt", "Reciprocal", "ReduceMean"),
}


def sensitive_operators(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: Softmax behind a pair computes in float, on rounded values."""
    for node in graph.nodes:
        made = graph.maker(node.inputs[0]) if node.inputs and node.op_type in _STAY_HIGH else None
        if made is not None and not made.quantizes and not made.on_constant:
            yield Location(node, f"{node.op_type} reads {made.output.name!r}")


def quantized_outputs(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: by default, do not quantize the outputs of weighted operators."""
    for one in graph.quantizers:
        if not one.quantizes and not one.on_constant and one.output.is_graph_output():
            yield Location(one.node, f"output {one.output.name!r} of the model")


RULES = (
    Rule(
        "sensitive-operator",
        "warning",
        "less accurate, and no faster: it has no INT8 kernel",
        "remove the pair before it",
        sensitive_operators,
    ),
    Rule(
        "quantized-output",
        "warning",
        "less accurate: the model's result is rounded to 8 bits, for no kernel of the model",
        "remove the pair before the output",
        quantized_outputs,
    ),
)
