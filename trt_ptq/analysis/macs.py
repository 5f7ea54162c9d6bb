"""How much of a model's arithmetic runs in INT8: multiply-accumulates by node."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

from trt_ptq.analysis.dataflow import inner_nodes
from trt_ptq.analysis.shapes import Shape, infer_shapes
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model

MAC_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def count_macs(model: Model, inputs: Mapping[str, Shape]) -> dict[str, int]:
    """Multiply-accumulates of each Conv, ConvTranspose, Gemm and MatMul of the main graph, by its first output.

    For one batch whose inputs have these shapes; see `infer_shapes`. All other operators are not counted.

    Raises:
        UsageError: an input's shape is needed, or does not fit.
        ModelError: a shape depends on the values of the inputs, or comes out of a custom op; or such a node lies in a
            body of If, Loop or Scan, which runs any number of times.
    """
    for node in model.to_ir().graph:
        inner = next((one for one in inner_nodes(node) if one.op_type in MAC_OPS), None)
        if inner is not None:
            raise ModelError(
                f"{model.path}: multiply-accumulates cannot be counted: {inner.op_type} {inner.outputs[0].name!r} lies "
                f"in a body of {node.op_type}, which runs any number of times"
            )
    shapes = infer_shapes(model, inputs)
    return {node.output[0]: _macs(node, shapes, model) for node in model.proto.graph.node if node.op_type in MAC_OPS}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape], model: Model) -> int:
    try:
        first, second, result = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    except KeyError as error:
        raise ModelError(
            f"{model.path}: the multiply-accumulates of {node.op_type} {node.output[0]!r} cannot be counted: the shape "
            f"of {error.args[0]!r} follows from values or comes out of a custom op"
        ) from error
    if node.op_type == "Conv":
        return prod(result) * prod(second[1:])  # weight [out, in / groups, ...]: so many for each output value
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])  # weight [in, out / groups, ...]: so many for each input value
    transposed = any(one.name == "transA" and one.i for one in node.attribute)
    return prod(result) * first[0 if node.op_type == "Gemm" and transposed else -1]
