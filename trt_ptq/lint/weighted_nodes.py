"""The operators with INT8 kernels, and which of their inputs is the weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.analysis.op_types import CONVOLUTIONS, WEIGHTED_OPS
from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer, rank_of


@dataclass(frozen=True, eq=False)
class Operand:
    """Input 0 or 1 of a weighted operator.

    Attributes:
        index: The index of the input.
        value: The tensor.
        dequantizer: The DequantizeLinear that it comes from, if any.
        is_activation: Whether it depends on an input of the model.
    """

    index: int
    value: ir.Value
    dequantizer: Quantizer | None
    is_activation: bool


@dataclass(frozen=True, eq=False)
class WeightedNode:
    """A Conv, ConvTranspose, Gemm or MatMul."""

    node: ir.Node
    operands: tuple[Operand, Operand]

    @property
    def weight(self) -> Operand | None:
        """The constant operand; None if both operands are activations, or both are constant."""
        constants = [operand for operand in self.operands if not operand.is_activation]
        return constants[0] if len(constants) == 1 else None

    def output_axis(self, operand: Operand) -> int | None:
        """The output-channel axis of `operand`; None if unknown."""
        if self.node.op_type in CONVOLUTIONS:
            return 0 if self.node.op_type == "Conv" else 1
        if self.node.op_type == "Gemm":
            transposed = bool(self.node.attributes.get_int("transB" if operand.index else "transA", 0))
            return int(transposed != bool(operand.index))
        rank = rank_of(operand.value)
        return None if rank is None or rank < 2 else rank - 2 + operand.index


def weighted_nodes(graph: QuantizedGraph) -> Iterator[WeightedNode]:
    """All weighted operators in graph order."""
    for node in graph.nodes:
        if node.op_type not in WEIGHTED_OPS or node.domain != "":
            continue
        first, second = (
            Operand(index, value, graph.dequantizer(value), graph.is_activation(value))
            for index, value in enumerate(node.inputs[:2])
            if value is not None
        )
        yield WeightedNode(node, (first, second))


def source_weighted_node(graph: QuantizedGraph, value: ir.Value | None) -> ir.Node | None:
    """The weighted operator that computes `value`, possibly followed by BatchNormalization or the Add of a bias."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type in WEIGHTED_OPS:
        return node
    if node.op_type == "BatchNormalization":
        return source_weighted_node(graph, node.inputs[0])
    if node.op_type == "Add":
        summands = [operand for operand in node.inputs if graph.is_activation(operand)]
        return source_weighted_node(graph, summands[0]) if len(summands) == 1 else None
    return None
