"""Ranges of activations that are too large for the data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, has_usable_scale
from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer, constant_tensor
from trt_ptq.qdq.float_names import float_name

MAX_PLAUSIBLE_AMAX = 1e9
UNUSED_FACTOR = 16  # four of the eight bits
_MIN_MASK = 1e4  # the smallest constant that models use for masks
_TOLERANCE = 0.02  # calibrators round ranges to a bin


def mask_ranges(graph: QuantizedGraph) -> Iterator[Location]:
    for quantizer in graph.encoders:
        amax = _amax(quantizer)
        if amax is None or quantizer.per_channel:
            continue
        mask = _mask_constant(quantizer.data, amax)
        if mask is not None:
            detail = f"range {amax:.4g} of {quantizer.data.name!r} is that of the constant {mask:.4g}"
            yield Location(quantizer.node, detail)
        elif amax >= MAX_PLAUSIBLE_AMAX:
            yield Location(quantizer.node, f"range {amax:.4g} of {quantizer.data.name!r}")


def oversized_ranges(graph: QuantizedGraph) -> Iterator[Location]:
    """Requires statistics. Without inputs of a Concat, which use the range of its output."""
    for quantizer in graph.quantizers:
        amax = _amax(quantizer)
        if not quantizer.is_quantize or quantizer.on_constant or amax is None:
            continue
        name = float_name(quantizer.node)
        measured = graph.measured.get(name, 0.0)
        dequantized = [use.node.outputs[0] for use in quantizer.output.uses()]
        readers = {use.node.op_type for value in dequantized for use in value.uses()}
        if measured and amax > UNUSED_FACTOR * measured and readers != {"Concat"}:
            detail = f"range {amax:.4g} of {name!r}, whose largest measured magnitude is {measured:.4g}"
            yield Location(quantizer.node, detail)


def _amax(quantizer: Quantizer) -> float | None:
    if quantizer.scale is None or not quantizer.scale.size:
        return None
    amax = float(quantizer.scale.astype(np.float64).max()) * INT8_MAX
    return amax if has_usable_scale(amax) else None


def _mask_constant(value: ir.Value, amax: float) -> float | None:
    """The constant that determined the range `amax`: `value` itself, or an input of the last two nodes before it."""
    reached = [value]
    for _ in range(3):
        for candidate in reached:
            tensor = constant_tensor(candidate)
            if tensor is not None and tensor.size == 1 and tensor.dtype.is_floating_point():
                number = float(tensor.numpy().ravel()[0])
                if abs(number) >= _MIN_MASK and abs(amax / abs(number) - 1) < _TOLERANCE:
                    return number
        producers = [producer for candidate in reached if (producer := candidate.producer()) is not None]
        reached = [operand for node in producers for operand in node.inputs if operand is not None]
    return None


RULES = (
    Rule(
        id="implausible-range",
        severity="error",
        effect="all ordinary values round to zero",
        remedy="exclude the tensor from quantization, or calibrate without the constant of the attention mask",
        evidence="Follows from the scale: attention masks add constants such as -1e4, -65504, -1e9 or -3.4e38.",
        check=mask_ranges,
    ),
    Rule(
        id="oversized-range",
        severity="warning",
        effect="less accurate: four or more of the eight bits are never used",
        remedy="calibrate this model with this data, or check whether the scale belongs to another tensor",
        evidence="Follows from the statistics; checked only with them.",
        check=oversized_ranges,
    ),
)
