"""Which operators with weights can run in INT8: Conv, ConvTranspose, Gemm, MatMul and embeddings."""

from __future__ import annotations

import onnx_ir as ir

from trt_ptq.analysis.constants import is_constant
from trt_ptq.analysis.dataflow import DataFlow, name_of

MIN_CHANNELS = 16
_OUTPUT_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # of the weight


def weight_axis(node: ir.Node) -> int:
    """The output-channel axis of the node's weight."""
    if node.op_type == "Gemm" and node.attributes.get_int("transB"):
        return 0
    return _OUTPUT_CHANNEL_AXIS[node.op_type]


def weighted_exclusion_reason(node: ir.Node, flow: DataFlow, weight_only: bool = False) -> str | None:
    """Why a weighted operator does not run in INT8; None if it can.

    Args:
        node: The operator.
        flow: The data flow of its graph.
        weight_only: Whether only its weight is to be quantized, which pays for a single row or position too.
    """
    data, weight = node.inputs[0], node.inputs[1]
    if name_of(data) not in flow.activations:
        if data is not None and data.dtype is None:
            return f"the type of its input {name_of(data)!r} is unknown: it depends on a plugin or custom op"
        weight_is_left = data is not None and is_constant(data) and name_of(weight) in flow.activations
        return "its weight is the left operand" if weight_is_left else "its input is not a float32 activation"
    if weight is None or not is_constant(weight):
        return "its weight is not constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, not float32"
    shape = _static_shape(weight.shape)
    if shape is None:
        return "the shape of its weight is unknown"
    if node.op_type in ("Gemm", "MatMul"):
        return _matrix_exclusion_reason(node, shape, weight_only)
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        channels_in, channels_out = shape[1] * groups, shape[0]
    else:
        channels_in, channels_out = shape[0], shape[1] * groups
    if min(channels_in, channels_out) < MIN_CHANNELS:
        return f"fewer than {MIN_CHANNELS} channels: no speedup from INT8"
    positions = node.outputs[0].shape[2:] if node.outputs[0].shape else ()
    if not weight_only and positions and all(size == 1 for size in positions):
        return "one output position per sample (matrix-vector product): no speedup from INT8"
    return None


def embedding_exclusion_reason(node: ir.Node, flow: DataFlow) -> str | None:
    """Why the table of a Gather is not stored in INT8; None if it can be."""
    table, indices = node.inputs[0], node.inputs[1]
    if table is None or table.const_value is None or table.dtype != ir.DataType.FLOAT or indices not in flow.values:
        return "not an embedding: it does not look up rows of a float32 table"
    shape = _static_shape(table.shape)
    if node.attributes.get_int("axis", 0) != 0 or shape is None or len(shape) != 2:
        return "not an embedding: it does not look up rows of a matrix"
    return f"rows of fewer than {MIN_CHANNELS} values: no benefit from INT8" if shape[1] < MIN_CHANNELS else None


def _matrix_exclusion_reason(node: ir.Node, weight: tuple[int, ...], weight_only: bool) -> str | None:
    if len(weight) != 2:
        return f"its weight has {len(weight)} axes, not 2"
    if min(weight) < MIN_CHANNELS:
        return f"K or N less than {MIN_CHANNELS}: no speedup from INT8"
    rows = node.outputs[0].shape[:-1] if node.outputs[0].shape else ()
    if not weight_only and rows and all(size == 1 for size in rows):
        return "one row (matrix-vector product): no speedup from INT8"
    return None


def _static_shape(shape: ir.Shape | None) -> tuple[int, ...] | None:
    return None if shape is None or not shape.is_static() else tuple(shape.numpy())
