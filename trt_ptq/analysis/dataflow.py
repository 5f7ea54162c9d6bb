"""Which tensors carry data: the activations, as opposed to constants and computations on shapes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

_SHAPE_OPS = {"Shape", "Size"}


@dataclass(frozen=True)
class DataFlow:
    """`values` depend on the values of an input; `activations` are the names of the float32 ones among them."""

    values: set[ir.Value]
    activations: set[str]

    @classmethod
    def of(cls, graph: ir.Graph) -> DataFlow:
        return cls(data_values(graph), activations(graph))


def name_of(value: ir.Value | None) -> str:
    """The tensor's name; empty for an input that is left out."""
    return (value.name if value is not None else None) or ""


def activations(graph: ir.Graph, types: Collection[ir.DataType] = (ir.DataType.FLOAT,)) -> set[str]:
    """Names of the tensors of the main graph, of one of `types`, that depend on the values of an input.

    What is computed from shapes or constants alone is no activation, even when it is float.
    """
    return {value.name for value in data_values(graph) if value.name and value.dtype in types}


def data_values(graph: ir.Graph) -> set[ir.Value]:
    """Tensors of the main graph, of any type, that depend on the values of an input."""
    carrying: set[ir.Value] = {value for value in graph.inputs if value.name not in graph.initializers}
    for node in graph:
        if node.op_type in _SHAPE_OPS and node.domain == "":
            continue
        used = [value for inner in (node, *inner_nodes(node)) for value in inner.inputs]
        if any(value in carrying for value in used if value is not None):
            carrying.update(node.outputs)
    return carrying


def inner_nodes(node: ir.Node) -> list[ir.Node]:
    """All nodes in the bodies of `node` (If, Loop, Scan), nested ones too."""
    nodes: list[ir.Node] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            nodes += attribute.as_graph().all_nodes()
        elif attribute.type == ir.AttributeType.GRAPHS:
            nodes += [inner for body in attribute.as_graphs() for inner in body.all_nodes()]
    return nodes
