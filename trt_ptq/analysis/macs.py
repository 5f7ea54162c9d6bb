"""Multiply-accumulate operations (MACs) of a model, by node."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

from trt_ptq.analysis.dataflow import inner_nodes
from trt_ptq.analysis.op_types import WEIGHTED_OPS
from trt_ptq.analysis.shapes import Shape, infer_shapes
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model


def count_macs(model: Model, inputs: Mapping[str, Shape]) -> dict[str, int]:
    """Count the MACs of each Conv, ConvTranspose, Gemm and MatMul of the main graph for one batch.

    Args:
        model: The model.
        inputs: Shapes of the inputs; see `infer_shapes`.

    Returns:
        MACs by the name of the node's first output.

    Raises:
        UsageError: An input shape is missing or does not match.
        ModelError: A shape depends on input values or is the result of a custom op; or such a node is inside an If,
            Loop or Scan, which executes it an unknown number of times.
    """
    for node in model.to_ir().graph:
        inner = next((inner for inner in inner_nodes(node) if inner.op_type in WEIGHTED_OPS), None)
        if inner is not None:
            raise ModelError(
                f"{model.path}: MACs cannot be counted: {inner.op_type} {inner.outputs[0].name!r} is inside "
                f"{node.op_type}, which executes it an unknown number of times"
            )
    shapes = infer_shapes(model, inputs)
    nodes = [node for node in model.proto.graph.node if node.op_type in WEIGHTED_OPS]
    return {node.output[0]: _macs(node, shapes, model) for node in nodes}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape], model: Model) -> int:
    try:
        first, second, result = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    except KeyError as error:
        raise ModelError(
            f"{model.path}: the MACs of {node.op_type} {node.output[0]!r} cannot be counted: the shape of "
            f"{error.args[0]!r} depends on input values or is the result of a custom op"
        ) from error
    if node.op_type == "Conv":
        return prod(result) * prod(second[1:])  # weight [out, in / groups, ...]: MACs per output value
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])  # weight [in, out / groups, ...]: MACs per input value
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(result) * first[0 if node.op_type == "Gemm" and transposed else -1]
