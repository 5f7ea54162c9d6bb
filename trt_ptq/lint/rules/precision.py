"""Q/DQ that costs accuracy without enabling an INT8 kernel."""

from __future__ import annotations

from collections.abc import Iterator

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph

_SENSITIVE_OPS = {
    *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
    *("RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"),
    *("Exp", "Log", "Erf", "Gelu", "Pow", "Sqrt", "Reciprocal", "ReduceMean"),
}


def sensitive_operators(graph: QuantizedGraph) -> Iterator[Location]:
    for node in graph.nodes:
        source = graph.source_quantizer(node.inputs[0]) if node.inputs and node.op_type in _SENSITIVE_OPS else None
        if source is not None and not source.is_quantize and not source.on_constant:
            yield Location(node, f"{node.op_type} reads {source.output.name!r}")


def quantized_outputs(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        if not quantizer.is_quantize and not quantizer.on_constant and quantizer.output.is_graph_output():
            yield Location(quantizer.node, f"output {quantizer.output.name!r} of the model")


RULES = (
    Rule(
        id="sensitive-operator",
        severity="warning",
        effect="less accurate, and no faster: the operator has no INT8 kernel",
        remedy="remove the pair before it",
        evidence="Observed: Softmax behind a pair computes in float, on rounded values.",
        check=sensitive_operators,
    ),
    Rule(
        id="quantized-output",
        severity="warning",
        effect="less accurate: the output of the model is rounded to 8 bits, although no kernel reads it",
        remedy="remove the pair before the output",
        evidence="NVIDIA: by default, do not quantize the outputs of weighted operators.",
        check=quantized_outputs,
    ),
)
