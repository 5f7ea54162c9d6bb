"""Find nodes that a model exported in training mode has: dropout that drops, batch norm with batch statistics."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from trt_ptq.onnx_io.domains import model_nodes
from trt_ptq.onnx_io.opset import onnx_opset

_DROPOUT_TRAINING_MODE = 2  # index of the input; since opset 12
_INFERENCE_OUTPUTS = 1  # of BatchNormalization before opset 14, whose other outputs request training


def training_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The Dropout and BatchNormalization nodes in training mode, including those in bodies and functions."""
    opset = onnx_opset(proto)
    nodes = list(model_nodes(proto))
    constants = _true_constants(proto, nodes)
    return [node for node in nodes if _is_training(node, opset, constants)]


def _is_training(node: onnx.NodeProto, opset: int, true_constants: set[str]) -> bool:
    if node.domain:
        return False
    if node.op_type == "Dropout":
        return len(node.input) > _DROPOUT_TRAINING_MODE and node.input[_DROPOUT_TRAINING_MODE] in true_constants
    if node.op_type == "BatchNormalization":
        if any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute):
            return True
        return opset < 14 and len([name for name in node.output if name]) > _INFERENCE_OUTPUTS
    return False


def _true_constants(proto: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> set[str]:
    """Names of the boolean constants that are true."""
    bodies = [body for node in nodes for attribute in node.attribute for body in [attribute.g, *attribute.graphs]]
    tensors = {tensor.name: tensor for graph in [proto.graph, *bodies] for tensor in graph.initializer}
    tensors |= {
        node.output[0]: node.attribute[0].t
        for node in nodes
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t")
    }
    return {
        name
        for name, tensor in tensors.items()
        if tensor.data_type == onnx.TensorProto.BOOL and numpy_helper.to_array(tensor).all()
    }
