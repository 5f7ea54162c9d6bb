"""QuantizeLinear and DequantizeLinear form pairs, one per tensor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer
from trt_ptq.onnx_io.quantized_ops import INTEGER_OPS
from trt_ptq.types import Array

_FLOAT16_ROUNDING = 2.0**-10


def lone_quantize(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        if quantizer.is_quantize and quantizer.output.is_graph_output():
            yield Location(quantizer.node, f"output {quantizer.output.name!r} of the model is quantized")


def lone_dequantize(graph: QuantizedGraph) -> Iterator[Location]:
    """Without integers computed from those of a QuantizeLinear: see `int8_readers`."""
    for quantizer in graph.quantizers:
        data = quantizer.data
        if quantizer.is_quantize or quantizer.on_constant or graph.source_quantizer(data) is not None:
            continue
        producer = data.producer()
        if producer is None:
            yield Location(quantizer.node, f"input {data.name!r} of the model is dequantized")
        elif producer.op_type not in INTEGER_OPS and all(
            graph.source_quantizer(value) is None for value in producer.inputs
        ):
            yield Location(quantizer.node, f"dequantizes the output of {producer.op_type}")


def int8_readers(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.quantizers:
        if quantizer.is_quantize:
            for use in quantizer.output.uses():
                if use.node.op_type != "DequantizeLinear" and use.node.op_type not in INTEGER_OPS:
                    yield Location(use.node, f"{use.node.op_type} reads the integers of {quantizer.output.name!r}")


def mismatched_pairs(graph: QuantizedGraph) -> Iterator[Location]:
    for dequantize in graph.quantizers:
        quantize = graph.source_quantizer(dequantize.data)
        if dequantize.is_quantize or quantize is None or not quantize.is_quantize:
            continue
        if not _about_equal(quantize.scale, dequantize.scale):
            detail = f"quantized with scale {_scale_text(quantize)}, dequantized with {_scale_text(dequantize)}"
            yield Location(dequantize.node, detail)
        elif quantize.per_channel and quantize.axis != dequantize.axis:
            detail = f"quantized along axis {quantize.axis}, dequantized along {dequantize.axis}"
            yield Location(dequantize.node, detail)
        elif not _same_zero_point(quantize, dequantize):
            yield Location(dequantize.node, "quantized and dequantized with different zero points")


def _about_equal(first: Array | None, second: Array | None) -> bool:
    """Whether two scales are equal up to float16 rounding; True if one of them is unknown."""
    if first is None or second is None:
        return True
    if first.size != second.size:
        return False
    with np.errstate(invalid="ignore"):
        return np.allclose(
            first.ravel().astype(np.float64), second.ravel().astype(np.float64), _FLOAT16_ROUNDING, 0, equal_nan=True
        )


def _scale_text(quantizer: Quantizer) -> str:
    if quantizer.scale is None:
        return "?"
    return f"{float(quantizer.scale.ravel()[0]):.6g}" + ("..." if quantizer.scale.size > 1 else "")


def _same_zero_point(first: Quantizer, second: Quantizer) -> bool:
    if first.zero_point is None or second.zero_point is None:
        return True
    return np.array_equal(first.zero_point.ravel(), second.zero_point.ravel())


def quantized_twice(graph: QuantizedGraph) -> Iterator[Location]:
    for quantize in graph.quantizers:
        source = graph.source_quantizer(quantize.data)
        if quantize.is_quantize and source is not None and not source.is_quantize:
            scales = "the same scale" if quantize.same_scale(source) else "another scale"
            yield Location(quantize.node, f"quantizes the dequantized {source.output.name!r} again, with {scales}")


def conflicting_scales(graph: QuantizedGraph) -> Iterator[Location]:
    first: dict[int, Quantizer] = {}
    for quantizer in graph.quantizers:
        if not quantizer.is_quantize or quantizer.on_constant:
            continue
        earlier = first.setdefault(id(quantizer.data), quantizer)
        if not earlier.same_scale(quantizer):
            scales = f"{_scale_text(earlier)} and {_scale_text(quantizer)}"
            yield Location(quantizer.node, f"activation {quantizer.data.name!r} is quantized with scales {scales}")


RULES = (
    Rule(
        id="lone-quantize",
        severity="warning",
        effect="the engine outputs int8, which the caller has to multiply by the scale",
        remedy="add DequantizeLinear behind it, unless the caller expects int8",
        evidence="Observed: the engine is built with an int8 output.",
        check=lone_quantize,
    ),
    Rule(
        id="lone-dequantize",
        severity="warning",
        effect="the integers do not come from QuantizeLinear: TensorRT cannot interpret them, and fuses nothing before",
        remedy="add QuantizeLinear before it, unless the caller provides int8",
        evidence="Observed: the engine is built, and the convolution behind it reads int8.",
        check=lone_dequantize,
    ),
    Rule(
        id="int8-reader",
        severity="warning",
        effect="NVIDIA supports integers only in QuantizeLinear, DequantizeLinear and plugins: a version may refuse it",
        remedy="move the operator behind DequantizeLinear; TensorRT reorders them itself",
        evidence="NVIDIA: quantized types are for QuantizeLinear, DequantizeLinear and plugins. Observed: MaxPool, "
        "Transpose, Reshape, Concat, Relu and Cast on int8 are built.",
        check=int8_readers,
    ),
    Rule(
        id="pair-mismatch",
        severity="error",
        effect="the tensor is scaled or shifted: the results differ from those of the float model",
        remedy="give QuantizeLinear and DequantizeLinear the same scale, zero point and axis",
        evidence="Observed: built as written.",
        check=mismatched_pairs,
    ),
    Rule(
        id="quantized-twice",
        severity="warning",
        effect="less accurate: the tensor is rounded twice",
        remedy="remove one of the two pairs",
        evidence="Observed: the engine rounds twice.",
        check=quantized_twice,
    ),
    Rule(
        id="conflicting-scales",
        severity="warning",
        effect="slower: the tensor is quantized and stored once per scale",
        remedy="use one pair for all readers",
        evidence="Observed: the engine quantizes the tensor once per scale.",
        check=conflicting_scales,
    ),
)
