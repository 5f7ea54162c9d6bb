"""Multiply-accumulate operations (MACs) of a model, by node."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from trt_ptq.analysis.dataflow import inner_nodes
from trt_ptq.analysis.node_macs import COUNTED_OPS, node_macs
from trt_ptq.analysis.shapes import Shape, infer_shapes
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model


def count_macs(model: Model, inputs: Mapping[str, Shape]) -> dict[str, int]:
    """Count the MACs of each node of the main graph that has many, for one batch.

    These are convolutions, matrix products, recurrent networks, Einsum and Attention; see `node_macs`.

    Args:
        model: The model.
        inputs: Shapes of the inputs; see `infer_shapes`.

    Returns:
        MACs by the name of the node's first output that is not omitted.

    Raises:
        UsageError: An input shape is missing or does not match.
        ModelError: A shape depends on input values or is the result of a custom op; or such a node is inside an If,
            Loop or Scan, which executes it an unknown number of times.
    """
    for node in model.to_ir().graph:
        inner = next((inner for inner in inner_nodes(node) if inner.op_type in COUNTED_OPS), None)
        if inner is not None:
            raise ModelError(
                f"{model.path}: MACs cannot be counted: {inner.op_type} {inner.outputs[0].name!r} is inside "
                f"{node.op_type}, which executes it an unknown number of times"
            )
    shapes = infer_shapes(model, inputs)
    nodes = [node for node in model.proto.graph.node if node.op_type in COUNTED_OPS and not node.domain]
    return {_name(node): _macs(node, shapes, model) for node in nodes}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape], model: Model) -> int:
    try:
        return node_macs(node, shapes)
    except KeyError as error:
        raise ModelError(
            f"{model.path}: the MACs of {node.op_type} {_name(node)!r} cannot be counted: the shape of "
            f"{error.args[0]!r} depends on input values or is the result of a custom op"
        ) from error


def _name(node: onnx.NodeProto) -> str:
    """The first output that is not omitted."""
    return str(next(filter(None, node.output), ""))
