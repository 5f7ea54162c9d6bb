"""How much of anybody's Q/DQ model runs in INT8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from trt_ptq.analysis.macs import count_macs
from trt_ptq.analysis.op_types import WEIGHTED_OPS
from trt_ptq.analysis.shapes import Shape
from trt_ptq.onnx_io.load import load_model, read_proto


def share_of_macs_in_int8(path: Path, inputs: Mapping[str, Shape]) -> float:
    """The share, 0 to 1, of the multiply-accumulates of the ONNX file `path` for inputs of these shapes.

    A Conv, ConvTranspose, Gemm or MatMul counts as INT8 when its data and its weight both come out of a
    DequantizeLinear: what TensorRT needs to run it in INT8.

    Raises:
        TrtPtqError: the model cannot be read, or its shapes cannot be inferred.
    """
    proto = read_proto(path)
    nodes = [node for node in proto.graph.node if node.op_type in WEIGHTED_OPS]
    dequantized = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    in_int8 = [node.output[0] for node in nodes if dequantized.issuperset(node.input[:2])]
    with tempfile.TemporaryDirectory() as folder:
        casts = Path(folder) / "casts.onnx"
        onnx.save(_with_casts(proto), casts)
        macs = count_macs(load_model(casts), inputs)
    total = sum(macs.values())
    return sum(macs[name] for name in in_int8) / total if total else 0.0


def _with_casts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto`, changed: a Cast for each Q and DQ node. It keeps shapes as they do, and is known in float models."""
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.CopyFrom(helper.make_node("Cast", node.input[:1], node.output, node.name, to=TensorProto.FLOAT))
    return proto
