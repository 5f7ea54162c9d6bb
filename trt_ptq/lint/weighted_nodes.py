"""The operators that INT8 is for, and which of their inputs is the weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.lint.quantized_graph import QuantizedGraph, Quantizer, rank_of

CONVOLUTIONS = {"Conv", "ConvTranspose"}
WEIGHTED = {*CONVOLUTIONS, "Gemm", "MatMul"}


@dataclass(frozen=True, eq=False)
class Operand:
    """Input 0 or 1 of a weighted operator, and the DequantizeLinear behind it, if any."""

    index: int
    value: ir.Value
    dequantizer: Quantizer | None
    carries_data: bool


@dataclass(frozen=True, eq=False)
class WeightedNode:
    """A Conv, ConvTranspose, Gemm or MatMul."""

    node: ir.Node
    operands: tuple[Operand, Operand]

    @property
    def weight(self) -> Operand | None:
        """The operand that is the same in every inference; None if both are activations, or neither."""
        constant = [one for one in self.operands if not one.carries_data]
        return constant[0] if len(constant) == 1 else None

    def output_axis(self, operand: Operand) -> int | None:
        """The axis of `operand` that runs over output channels; None where the model does not tell."""
        if self.node.op_type in CONVOLUTIONS:
            return 0 if self.node.op_type == "Conv" else 1
        if self.node.op_type == "Gemm":
            transposed = bool(self.node.attributes.get_int("transB" if operand.index else "transA", 0))
            return int(transposed != bool(operand.index))
        rank = rank_of(operand.value)
        return None if rank is None or rank < 2 else rank - 2 + operand.index


def weighted_nodes(graph: QuantizedGraph) -> Iterator[WeightedNode]:
    """Every weighted operator, in graph order."""
    for node in graph.nodes:
        if node.op_type not in WEIGHTED or node.domain != "":
            continue
        first, second = (
            Operand(index, value, graph.dequantizer(value), graph.carries_data(value))
            for index, value in enumerate(node.inputs[:2])
            if value is not None
        )
        yield WeightedNode(node, (first, second))


def weighted_behind(graph: QuantizedGraph, value: ir.Value | None) -> ir.Node | None:
    """The weighted operator whose result `value` is, after at most BatchNormalization and the addition of a bias."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type in WEIGHTED:
        return node
    if node.op_type == "BatchNormalization":
        return weighted_behind(graph, node.inputs[0])
    if node.op_type == "Add":
        summands = [one for one in node.inputs if graph.carries_data(one)]
        return weighted_behind(graph, summands[0]) if len(summands) == 1 else None
    return None
