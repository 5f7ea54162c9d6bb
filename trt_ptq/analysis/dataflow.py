"""Which tensors are activations, as opposed to constants and shape computations."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.analysis.op_types import SHAPE_OPS


@dataclass(frozen=True)
class DataFlow:
    """The tensors of a graph that depend on input data.

    Attributes:
        values: Values of any type.
        activations: Names of the float32 ones.
    """

    values: set[ir.Value]
    activations: set[str]

    @classmethod
    def of(cls, graph: ir.Graph) -> DataFlow:
        return cls(data_values(graph), activations(graph))


def name_of(value: ir.Value | None) -> str:
    """The tensor's name; empty for an omitted optional input."""
    return (value.name if value is not None else None) or ""


def keep_name(node: ir.Node) -> None:
    """Name a node before its first output gets another name: by that output, as TensorRT calls nodes without a name."""
    node.name = node.name or f"node_of_{name_of(node.outputs[0])}"


def activations(graph: ir.Graph, types: Collection[ir.DataType] = (ir.DataType.FLOAT,)) -> set[str]:
    """Names of the activations of the main graph whose dtype is in `types`.

    Tensors computed from shapes or constants alone are not activations, even if they are float, nor are sequences.
    """
    return {
        value.name
        for value in data_values(graph)
        if value.name and value.dtype in types and isinstance(value.type, ir.TensorType)
    }


def data_values(graph: ir.Graph) -> set[ir.Value]:
    """Values of the main graph, of any type, that depend on the data of a graph input."""
    dependent: set[ir.Value] = {value for value in graph.inputs if value.name not in graph.initializers}
    for node in graph:
        if node.op_type in SHAPE_OPS and node.domain == "":
            continue
        operands = [value for reader in (node, *inner_nodes(node)) for value in reader.inputs]
        if any(value in dependent for value in operands if value is not None):
            dependent.update(node.outputs)
    return dependent


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that `node` (If, Loop, Scan) has as attributes."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def inner_nodes(node: ir.Node) -> list[ir.Node]:
    """All nodes in the bodies of `node`, including nested ones."""
    return [inner for body in bodies(node) for inner in body.all_nodes()]
