"""QuantizeLinear and DequantizeLinear belong together, once for each tensor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import DEQUANTIZE, QuantizedGraph, Quantizer
from trt_ptq.lint.rules.encoding import INTEGER_OPERATORS
from trt_ptq.types import Array

_FLOAT16_ROUNDING = 2.0**-10


def lone_quantize(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: built with an int8 output of the engine."""
    for one in graph.quantizers:
        if one.quantizes and one.output.is_graph_output():
            yield Location(one.node, f"output {one.output.name!r} of the model is quantized")


def lone_dequantize(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: built, and the convolution behind it reads int8. Integers computed from a QuantizeLinear's are
    `int8_readers`' business."""
    for one in graph.quantizers:
        if one.quantizes or one.on_constant or graph.maker(one.data) is not None:
            continue
        producer = one.data.producer()
        if producer is None:
            yield Location(one.node, f"input {one.data.name!r} of the model is dequantized")
        elif producer.op_type not in INTEGER_OPERATORS and all(graph.maker(value) is None for value in producer.inputs):
            yield Location(one.node, f"dequantizes what {producer.op_type} computed")


def int8_readers(graph: QuantizedGraph) -> Iterator[Location]:
    """NVIDIA: quantized types are for QuantizeLinear, DequantizeLinear and plugins. Seen: MaxPool, Transpose, Reshape,
    Concat, Relu and Cast on int8 were built."""
    for one in graph.quantizers:
        if one.quantizes:
            for use in one.output.uses():
                if use.node.op_type != DEQUANTIZE and use.node.op_type not in INTEGER_OPERATORS:
                    yield Location(use.node, f"{use.node.op_type} reads the integers of {one.output.name!r}")


def mismatched(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: built as it is written."""
    for one in graph.quantizers:
        made = graph.maker(one.data)
        if one.quantizes or made is None or not made.quantizes:
            continue
        if not _about_equal(made.scale, one.scale):
            yield Location(one.node, f"quantized with scale {_told(made)}, dequantized with {_told(one)}")
        elif made.per_channel and made.axis != one.axis:
            yield Location(one.node, f"quantized along axis {made.axis}, dequantized along {one.axis}")
        elif not _same_zero_point(made, one):
            yield Location(one.node, "quantized and dequantized with different zero points")


def _about_equal(first: Array | None, second: Array | None) -> bool:
    """Whether two scales are the same but for float16's rounding; one that is not known passes."""
    if first is None or second is None:
        return True
    if first.size != second.size:
        return False
    with np.errstate(invalid="ignore"):
        return np.allclose(
            first.ravel().astype(np.float64), second.ravel().astype(np.float64), _FLOAT16_ROUNDING, 0, equal_nan=True
        )


def _told(one: Quantizer) -> str:
    if one.scale is None:
        return "?"
    return f"{float(one.scale.ravel()[0]):.6g}" + ("..." if one.scale.size > 1 else "")


def _same_zero_point(first: Quantizer, second: Quantizer) -> bool:
    if first.zero_point is None or second.zero_point is None:
        return True
    return np.array_equal(first.zero_point.ravel(), second.zero_point.ravel())


def twice(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: the engine rounds twice."""
    for one in graph.quantizers:
        before = graph.maker(one.data)
        if one.quantizes and before is not None and not before.quantizes:
            scales = "the same scale" if one.same_scale(before) else "another scale"
            yield Location(one.node, f"quantizes again, with {scales}, what {before.output.name!r} dequantized")


def rivals(graph: QuantizedGraph) -> Iterator[Location]:
    """Seen: the engine quantizes the tensor once for each scale."""
    first: dict[int, Quantizer] = {}
    for one in graph.quantizers:
        if one.quantizes and not one.on_constant and not first.setdefault(id(one.data), one).same_scale(one):
            told = f"{_told(first[id(one.data)])} and {_told(one)}"
            yield Location(one.node, f"activation {one.data.name!r} is quantized with scales {told}")


RULES = (
    Rule(
        "lone-quantize",
        "warning",
        "the engine gives int8, and its caller has to multiply by the scale",
        "put DequantizeLinear behind it, unless the caller wants int8",
        lone_quantize,
    ),
    Rule(
        "lone-dequantize",
        "warning",
        "the integers were not made by QuantizeLinear: TensorRT cannot tell what they mean, and fuses nothing before",
        "put QuantizeLinear before it, unless the caller gives int8",
        lone_dequantize,
    ),
    Rule(
        "int8-reader",
        "warning",
        "NVIDIA promises integers to QuantizeLinear, DequantizeLinear and plugins alone: a version may refuse it",
        "put the operator behind DequantizeLinear; TensorRT moves it to where it is fast",
        int8_readers,
    ),
    Rule(
        "pair-mismatch",
        "error",
        "the tensor comes out multiplied, or shifted: not what the float model computes",
        "give QuantizeLinear and DequantizeLinear the same scale, zero point and axis",
        mismatched,
    ),
    Rule(
        "quantized-twice",
        "warning",
        "less accurate: rounded twice",
        "remove one of the two pairs",
        twice,
    ),
    Rule(
        "rival-scales",
        "warning",
        "slower: the tensor is quantized once for each scale, and stored as often",
        "give all readers the same pair",
        rivals,
    ),
)
