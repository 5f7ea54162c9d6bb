"""Which operators with weights run in INT8: Conv, ConvTranspose, Gemm, MatMul, and embeddings."""

from __future__ import annotations

import onnx_ir as ir

from trt_ptq.analysis.constants import is_constant
from trt_ptq.analysis.dataflow import DataFlow, name_of

MIN_CHANNELS = 16
WEIGHTED_OPS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # the output channels' axis of the weight


def weight_axis(node: ir.Node) -> int:
    """The axis of the output channels in the node's weight."""
    if node.op_type == "Gemm" and node.attributes.get_int("transB"):
        return 0
    return WEIGHTED_OPS[node.op_type]


def why_float(node: ir.Node, flow: DataFlow) -> str | None:
    """Why a weighted node stays float; None when it can run in INT8."""
    data, weight = node.inputs[0], node.inputs[1]
    if name_of(data) not in flow.activations:
        left = data is not None and is_constant(data) and name_of(weight) in flow.activations
        return "its weight is on the left" if left else "its data is not a float32 activation"
    if weight is None or not is_constant(weight):
        return "its weight is computed in the graph"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, not float32"
    shape = _static(weight.shape)
    if shape is None:
        return "its weight's shape is not known"
    if node.op_type in ("Gemm", "MatMul"):
        return _why_no_matrix(node, shape)
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        channels_in, channels_out = shape[1] * groups, shape[0]
    else:
        channels_in, channels_out = shape[0], shape[1] * groups
    if min(channels_in, channels_out) < MIN_CHANNELS:
        return f"under {MIN_CHANNELS} channels: no gain from INT8"
    positions = node.outputs[0].shape[2:] if node.outputs[0].shape else ()
    if positions and all(one == 1 for one in positions):
        return "one position a sample (matrix-vector): no gain from INT8"
    return None


def why_float_embedding(node: ir.Node, flow: DataFlow) -> str | None:
    """Why the table of a Gather stays float; None when its rows can be stored in INT8."""
    table, rows = node.inputs[0], node.inputs[1]
    if table is None or table.const_value is None or table.dtype != ir.DataType.FLOAT or rows not in flow.values:
        return "no embedding: it does not pick rows of a float32 table"
    shape = _static(table.shape)
    if node.attributes.get_int("axis", 0) != 0 or shape is None or len(shape) != 2:
        return "no embedding: it does not pick rows of a matrix"
    return f"rows under {MIN_CHANNELS} values: no gain from INT8" if shape[1] < MIN_CHANNELS else None


def _why_no_matrix(node: ir.Node, weight: tuple[int, ...]) -> str | None:
    if len(weight) != 2:
        return f"its weight has {len(weight)} axes, not 2"
    if min(weight) < MIN_CHANNELS:
        return f"K or N under {MIN_CHANNELS}: no gain from INT8"
    rows = node.outputs[0].shape[:-1] if node.outputs[0].shape else ()
    if rows and all(one == 1 for one in rows):
        return "one row (matrix-vector): no gain from INT8"
    return None


def _static(shape: ir.Shape | None) -> tuple[int, ...] | None:
    return None if shape is None or not shape.is_static() else tuple(shape.numpy())
