"""Linear layers whose weights can be changed: a MatMul or Gemm by a float32 matrix, possibly through a Transpose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.types import Array


@dataclass(frozen=True)
class Linear:
    """A MatMul or Gemm whose weight can be changed.

    Attributes:
        node: the node.
        weight: the initializer.
        axis: its axis of input channels.
        tied: whether embeddings read the weight as well, so that a copy is scaled; INT8 stores it twice in any case.
    """

    node: ir.Node
    weight: ir.Value
    axis: int
    tied: bool = False

    @property
    def channels(self) -> int:
        """Number of input channels."""
        assert self.weight.const_value is not None
        return int(self.weight.const_value.shape.numpy()[self.axis])

    @property
    def operand(self) -> ir.Value:
        """The weight as the node reads it: the initializer, or the output of a Transpose."""
        operand = self.node.inputs[1]
        assert operand is not None
        return operand

    @property
    def weight_reader(self) -> tuple[ir.Node, int]:
        """The node that reads the initializer, this one or the Transpose, and by which of its inputs."""
        if self.operand is self.weight:
            return self.node, 1
        transpose = self.operand.producer()
        assert transpose is not None
        return transpose, 0

    def matrix(self, weight: Array) -> Array:
        """The value of the initializer with the input channels as its first axis."""
        return weight.T if self.axis else weight

    def with_own_weight(self, editor: GraphEditor, tensor: ir.TensorProtocol) -> Linear:
        """Make the layer read a new initializer, `tensor`, and leave the old one to its other readers."""
        reader, index = self.weight_reader
        weight = editor.constant(f"{self.weight.name}.untied", tensor)
        reader.replace_input_with(index, weight)
        return replace(self, weight=weight)


def linear_of(node: ir.Node) -> Linear | None:
    """The layer of `node`; None unless its weight is a float32 matrix."""
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm") or node.attributes.get_int("transA"):
        return None
    weight = node.inputs[1]
    axis = 1 if node.attributes.get_int("transB") else 0
    view = weight.producer() if weight is not None else None
    if view is not None and view.op_type == "Transpose" and view.domain == "":
        if tuple(view.attributes.get_ints("perm", (1, 0))) != (1, 0):
            return None
        weight, axis = view.inputs[0], 1 - axis
    if weight is None or not weight.is_initializer() or weight.const_value is None:
        return None
    is_matrix = weight.dtype == ir.DataType.FLOAT and len(weight.const_value.shape) == 2
    return Linear(node, weight, axis) if is_matrix else None
