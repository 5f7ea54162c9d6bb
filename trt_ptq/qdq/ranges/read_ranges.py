"""Read the activation ranges of a Q/DQ model into a calibration table for TensorRT's implicit quantization.

The QuantizeLinear nodes of the main graph that quantize activations are read; those of weights are skipped. A range
gets the name that the tensor has in the float model; see `float_names`.

TensorRT's INT8 is symmetric: scale s with zero point 0 gives amax = 127 s, whose scale has the same bits as s. Any
other 8-bit encoding [(qmin - z) s, (qmax - z) s] is widened to the symmetric range that covers it, and reported:
nothing is clipped earlier than before, but quantization steps are up to twice as large.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trt_ptq._internal.listing import first_few
from trt_ptq.analysis.dataflow import data_values
from trt_ptq.calibrators.table.calibration_table import INT8_MAX, CalibrationTable, has_usable_scale
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import read_proto
from trt_ptq.onnx_io.quantized_ops import INTEGER_OPS
from trt_ptq.qdq.float_names import float_name

_INTEGER_LIMITS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}
_MAX_REPORTED = 3


@dataclass(frozen=True)
class WidenedRange:
    """An asymmetrically quantized tensor.

    Attributes:
        name: The tensor.
        encoding: Its encoding in the Q/DQ model, in words.
        amax: The symmetric range that covers it.
    """

    name: str
    encoding: str
    amax: float


@dataclass(frozen=True)
class QdqRanges:
    """The activation ranges of a Q/DQ model.

    Attributes:
        table: The ranges in graph order.
        widened: Tensors that were not quantized symmetrically to int8.
        conflicting: Tensors with several ranges; the widest is in `table`.
        num_weights: The number of QuantizeLinear nodes of weights, which were skipped.
    """

    table: CalibrationTable
    widened: tuple[WidenedRange, ...]
    conflicting: tuple[str, ...]
    num_weights: int


@dataclass(frozen=True)
class _Encoding:
    """The symmetric range of a quantizer; `widened_from` describes its encoding unless it is symmetric int8."""

    amax: float
    widened_from: str = ""


def read_qdq_ranges(path: str | os.PathLike[str]) -> QdqRanges:
    """Read the activation ranges of a Q/DQ model of any tool (trt_ptq, ONNX Runtime, modelopt).

    Args:
        path: The Q/DQ model.

    Returns:
        The ranges as a table, and what could not be represented exactly.

    Raises:
        ModelError: The file cannot be read (see `read_proto`); it is a float model, or in QOperator format; or an
            activation is quantized per channel, with a scale computed at run time, to another type than 8-bit integers,
            or with a scale that is zero, negative or not finite.
    """
    path = Path(path)
    graph = ir.from_proto(read_proto(path)).graph
    operators = sorted({node.op_type for node in graph} & INTEGER_OPS)
    if operators:
        raise ModelError(
            f"{path}: quantized with integer operators ({', '.join(operators)}) instead of QuantizeLinear and "
            "DequantizeLinear: export it in Q/DQ format (ONNX Runtime: quantize_static with "
            "quant_format=QuantFormat.QDQ)"
        )
    data = data_values(graph)
    amax: dict[str, float] = {}
    widened: dict[str, WidenedRange] = {}
    conflicting: dict[str, None] = {}
    refused: list[str] = []
    num_weights = 0
    for node in graph:
        if node.op_type != "QuantizeLinear":
            continue
        if node.inputs[0] not in data:
            num_weights += 1
            continue
        name = float_name(node)
        encoding = _read_encoding(node)
        if isinstance(encoding, str):
            refused.append(f"{name!r} {encoding}")
            continue
        if amax.get(name, encoding.amax) != encoding.amax:
            conflicting[name] = None
        if encoding.amax >= amax.get(name, 0.0):
            amax[name] = encoding.amax
            widened.pop(name, None)
            if encoding.widened_from:
                widened[name] = WidenedRange(name, encoding.widened_from, encoding.amax)
    if refused:
        shown = first_few(refused, _MAX_REPORTED, "; ")
        raise ModelError(f"{path}: a TensorRT cache cannot represent this: {shown}")
    if not amax:
        raise ModelError(
            f"{path}: none of its activations is quantized, so it has no ranges: pass a Q/DQ model, or calibrate this "
            "one (trt-ptq calibrate)"
        )
    return QdqRanges(CalibrationTable(amax), tuple(widened.values()), tuple(conflicting), num_weights)


def _read_encoding(node: ir.Node) -> _Encoding | str:
    """The encoding of a QuantizeLinear, or why it cannot be represented."""
    scale, zero_point = _constant_input(node, 1), _constant_input(node, 2)
    if scale is None:
        return "has a scale that is computed at run time"
    if scale.size != 1:
        return f"is quantized per channel ({scale.size} scales); TensorRT supports one scale per activation"
    if zero_point is not None:
        dtype, offset = zero_point.dtype, int(zero_point.numpy().reshape(-1)[0])
    elif len(node.inputs) > 2 and node.inputs[2] is not None:
        return "has a zero point that is computed at run time"
    else:
        dtype, offset = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8), 0
    if dtype not in _INTEGER_LIMITS:
        return f"is quantized to {dtype}, not to 8-bit integers"
    step = float(np.float32(scale.numpy().reshape(-1)[0]))
    if not has_usable_scale(step * INT8_MAX):
        return f"has scale {step:g}; it must be positive and finite"
    if dtype == ir.DataType.INT8 and offset == 0:
        return _Encoding(step * INT8_MAX)
    low, high = ((limit - offset) * step for limit in _INTEGER_LIMITS[dtype])
    description = f"{dtype.name.lower()} with zero point {offset}: {low:.6g} to {high:.6g}"
    return _Encoding(max(-low, high), description)


def _constant_input(node: ir.Node, index: int) -> ir.TensorProtocol | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None else ir.convenience.get_const_tensor(value)
