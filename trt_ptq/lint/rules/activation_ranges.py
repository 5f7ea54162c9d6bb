"""Ranges that leave nothing of the data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, has_usable_scale
from trt_ptq.lint.finding import Location, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer, constant
from trt_ptq.qdq.read_ranges import float_name

FAR = 1e9  # no activation that INT8 is for
IDLE = 16  # four of the eight bits
_MASK = 1e4  # the smallest constant that models mask with
_NEAR = 0.02  # calibrators round ranges to a bin


def far_ranges(graph: QuantizedGraph) -> Iterator[Location]:
    """Attention masks: -1e4, -65504, -1e9, -3.4e38. The arithmetic tells the effect; nothing needs to be built."""
    for one in graph.encoders:
        amax = _amax(one)
        if amax is None or one.per_channel:
            continue
        mask = _mask_behind(one.data, amax)
        if mask is not None:
            yield Location(one.node, f"range {amax:.4g} of {one.data.name!r} is that of the constant {mask:.4g}")
        elif amax >= FAR:
            yield Location(one.node, f"range {amax:.4g} of {one.data.name!r}")


def idle_ranges(graph: QuantizedGraph) -> Iterator[Location]:
    """Only with statistics. Inputs of a Concat are left out: they take the range of its output."""
    for one in graph.quantizers:
        amax = _amax(one)
        if not one.quantizes or one.on_constant or amax is None:
            continue
        name = float_name(one.node)
        measured = graph.measured.get(name, 0.0)
        readers = {last.node.op_type for use in one.output.uses() for last in use.node.outputs[0].uses()}
        if measured and amax > IDLE * measured and readers != {"Concat"}:
            yield Location(one.node, f"range {amax:.4g} of {name!r}, which never passed {measured:.4g}")


def _amax(one: Quantizer) -> float | None:
    if one.scale is None or not one.scale.size:
        return None
    amax = float(one.scale.astype(np.float64).max()) * INT8_MAX
    return amax if has_usable_scale(amax) else None


def _mask_behind(value: ir.Value, amax: float) -> float | None:
    """The constant, among the inputs of the two nodes before `value` or `value` itself, that set the range `amax`."""
    reached = [value]
    for _ in range(3):
        for one in reached:
            found = constant(one)
            if found is not None and found.size == 1 and found.dtype.is_floating_point():
                number = float(found.numpy().ravel()[0])
                if abs(number) >= _MASK and abs(amax / abs(number) - 1) < _NEAR:
                    return number
        before = [producer for one in reached if (producer := one.producer()) is not None]
        reached = [one for node in before for one in node.inputs if one is not None]
    return None


RULES = (
    Rule(
        "far-range",
        "error",
        "all ordinary values round to zero",
        "keep the tensor in float, or calibrate without the attention mask's constant",
        far_ranges,
    ),
    Rule(
        "idle-range",
        "warning",
        "less accurate: four or more of the eight bits are never used",
        "calibrate this model with this data, or see whether the scale belongs to another tensor",
        idle_ranges,
    ),
)
