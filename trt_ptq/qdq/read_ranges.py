"""The activation ranges in a Q/DQ model, as a calibration table for TensorRT's implicit quantization.

Read are the QuantizeLinear nodes of the main graph whose input is computed from the model's inputs; those on weights
are skipped. A range carries the name of the tensor in the float model:

- the input of QuantizeLinear, taken before any Cast or any Q/DQ pair in front of it;
- if that name was made up by ONNX Runtime for a quantized graph output (`y_QuantizeLinear_Input`), the output's.

TensorRT's int8 is symmetric: scale s and zero point 0 give amax = 127 s, whose scale has the very bits of s. Any
other 8-bit encoding [(qmin - z) s, (qmax - z) s] is widened to the symmetric range that covers it, and named:
nothing clips earlier than it did, but steps are up to twice as wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.dataflow import data_values
from trt_ptq.calibrators.table.calibration_table import INT8_MAX, CalibrationTable, has_usable_scale
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import read_proto

_LIMITS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}
_UNREADABLE = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
_NAMED = 3


@dataclass(frozen=True)
class WidenedRange:
    """A tensor quantized asymmetrically, to what, and the symmetric range that covers it."""

    name: str
    encoding: str
    amax: float


@dataclass(frozen=True)
class QdqRanges:
    """`table` in graph order; `widened` were not symmetric int8; `conflicting` had several ranges: the widest is kept;
    `num_weights` counts the QuantizeLinear nodes on constants, and on what is computed from them."""

    table: CalibrationTable
    widened: tuple[WidenedRange, ...]
    conflicting: tuple[str, ...]
    num_weights: int


def read_qdq_ranges(path: Path) -> QdqRanges:
    """Read the ranges of the Q/DQ model at `path`, of this tool, ONNX Runtime, modelopt or another.

    Raises:
        ModelError: see `read_proto`; a float model, or one quantized in operators; activations quantized per channel,
            by a scale computed at run time, to something other than 8-bit integers, or with a scale that is zero,
            negative or not finite.
    """
    graph = ir.from_proto(read_proto(path)).graph
    operators = sorted({node.op_type for node in graph} & _UNREADABLE)
    if operators:
        raise ModelError(
            f"{path}: quantized in operators ({', '.join(operators)}) instead of QuantizeLinear and DequantizeLinear: "
            "export it in Q/DQ form (ONNX Runtime: quantize_static with quant_format=QuantFormat.QDQ)"
        )
    carrying = data_values(graph)
    amax: dict[str, float] = {}
    widened: dict[str, WidenedRange] = {}
    disagreeing: dict[str, None] = {}
    refused: list[str] = []
    weights = 0
    for node in graph:
        if node.op_type != "QuantizeLinear":
            continue
        data = node.inputs[0]
        assert data is not None
        if data not in carrying:
            weights += 1
            continue
        name = float_name(node)
        found = _read(node)
        if isinstance(found, str):
            refused.append(f"{name!r} {found}")
            continue
        value, encoding = found
        if amax.get(name, value) != value:
            disagreeing[name] = None
        if value >= amax.get(name, 0.0):
            amax[name] = value
            widened.pop(name, None)
            if encoding:
                widened[name] = WidenedRange(name, encoding, value)
    if refused:
        more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        raise ModelError(f"{path}: a TensorRT cache cannot hold this: {'; '.join(refused[:_NAMED])}{more}")
    if not amax:
        raise ModelError(
            f"{path}: no activation of it is quantized, so there is nothing to extract: give the Q/DQ model, or "
            "calibrate this one (trt-ptq calibrate)"
        )
    return QdqRanges(CalibrationTable(amax), tuple(widened.values()), tuple(disagreeing), weights)


def _read(node: ir.Node) -> tuple[float, str] | str:
    """amax, and the encoding in words unless it is symmetric int8; or why there is none."""
    scale, zero = _constant(node, 1), _constant(node, 2)
    if scale is None:
        return "has a scale that is computed at run time"
    if scale.size != 1:
        return f"is quantized per channel ({scale.size} scales): TensorRT takes one a tensor for activations"
    if zero is not None:
        dtype, shift = zero.dtype, int(zero.numpy().reshape(-1)[0])
    elif len(node.inputs) > 2 and node.inputs[2] is not None:
        return "has a zero point that is computed at run time"
    else:
        dtype, shift = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8), 0
    if dtype not in _LIMITS:
        return f"is quantized to {dtype}, not to 8-bit integers"
    step = float(np.float32(scale.numpy().reshape(-1)[0]))
    if not has_usable_scale(step * INT8_MAX):
        return f"has scale {step:g}: it must be above zero and finite"
    if dtype == ir.DataType.INT8 and shift == 0:
        return step * INT8_MAX, ""
    low, high = ((limit - shift) * step for limit in _LIMITS[dtype])
    return max(-low, high), f"{dtype.name.lower()} with zero point {shift}: {low:.6g} to {high:.6g}"


def _constant(node: ir.Node, index: int) -> ir.TensorProtocol | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None else ir.convenience.get_const_tensor(value)


def float_name(node: ir.Node) -> str:
    """The name that the tensor has in the float model."""
    value = node.inputs[0]
    assert value is not None
    if len(value.uses()) == 1 and not value.is_graph_input():
        for use in node.outputs[0].uses():
            result = use.node.outputs[0]
            if use.node.op_type == "DequantizeLinear" and result.is_graph_output():
                return result.name or ""
    while (producer := value.producer()) is not None and producer.op_type in (
        "Cast",
        "DequantizeLinear",
        "QuantizeLinear",
    ):
        before = producer.inputs[0]
        assert before is not None
        value = before
    return value.name or ""
