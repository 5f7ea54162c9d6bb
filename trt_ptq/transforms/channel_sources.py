"""The constants that scale the channels of a tensor, with one number or one column per channel.

They are the scale of a normalization or the weights of a linear layer. Between them and the tensor there may be an
addition of constants, a function with f(s x) = s f(x) for s > 0, and a multiplication by other data (the gated MLP of
LLaMA).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.analysis.op_types import POSITIVELY_HOMOGENEOUS_OPS

_AFFINE = {"LayerNormalization": (1, 2), "RMSNormalization": (1,)}  # inputs that scale and shift the channels


@dataclass(frozen=True)
class ChannelConstant:
    """A float32 initializer with one entry or column per channel.

    Attributes:
        node: the node that reads it.
        index: which of its inputs it is.
        axis: its axis of channels: -1, or 0 of a matrix.
    """

    node: ir.Node
    index: int
    axis: int

    @property
    def tensor(self) -> ir.TensorProtocol | None:
        """The value; None if it is not a float32 initializer."""
        value = self.node.inputs[self.index]
        return value.const_value if value is not None and value.dtype == ir.DataType.FLOAT else None

    @property
    def channels(self) -> int:
        return int(self.tensor.shape.numpy()[self.axis]) if self.tensor is not None and self.tensor.shape else 1

    def __str__(self) -> str:
        return name_of(self.node.inputs[self.index])


def channel_constants(tensor: ir.Value | None) -> tuple[ChannelConstant, ...]:
    """All constants to divide so that the channels (last axis) of `tensor` and nothing else are divided."""
    node = tensor.producer() if tensor is not None else None
    if node is None or node.domain != "":
        return ()
    if node.op_type in _AFFINE:
        indices = [index for index in _AFFINE[node.op_type] if index < len(node.inputs) and node.inputs[index]]
        return tuple(ChannelConstant(node, index, -1) for index in indices)
    if node.op_type in POSITIVELY_HOMOGENEOUS_OPS:
        return _of_unshared(node.inputs[0])
    if node.op_type in ("Mul", "Add"):
        return _of_product(node) if node.op_type == "Mul" else _of_sum(node)
    return linear_constants(node)


def _of_unshared(tensor: ir.Value | None) -> tuple[ChannelConstant, ...]:
    """The constants of a tensor that only one node reads."""
    if tensor is None or len(tensor.uses()) != 1 or tensor.is_graph_output():
        return ()
    return channel_constants(tensor)


def _of_product(node: ir.Node) -> tuple[ChannelConstant, ...]:
    index = _constant_input(node)
    if index is not None:
        return (ChannelConstant(node, index, -1),)
    return _of_unshared(node.inputs[0]) or _of_unshared(node.inputs[1])


def _of_sum(node: ir.Node) -> tuple[ChannelConstant, ...]:
    index = _constant_input(node)
    scaled = () if index is None else _of_unshared(node.inputs[1 - index])
    return (*scaled, ChannelConstant(node, index, -1)) if scaled and index is not None else ()


def linear_constants(node: ir.Node) -> tuple[ChannelConstant, ...]:
    """The weight, and the bias of a Gemm, of a layer whose weight is an initializer that nothing else reads."""
    if node.op_type not in ("MatMul", "Gemm"):
        return ()
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or len(weight.uses()) != 1 or weight.is_graph_output():
        return ()
    if weight.const_value is None or len(weight.const_value.shape) != 2:
        return ()
    scaled = ChannelConstant(node, 1, 0 if node.attributes.get_int("transB") else -1)
    biased = node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None
    return (scaled, ChannelConstant(node, 2, -1)) if biased else (scaled,)


def _constant_input(node: ir.Node) -> int | None:
    """Index of the input that is a constant with channels."""
    for index, value in enumerate(node.inputs):
        if value is not None and value.is_initializer() and value.shape and value.shape[-1] != 1:
            return index
    return None
