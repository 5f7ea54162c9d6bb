"""Which tensors carry data: the activations, as opposed to constants and computations on shapes."""

from __future__ import annotations

import onnx_ir as ir

_SHAPE_OPS = {"Shape", "Size"}


def activations(graph: ir.Graph) -> set[str]:
    """Names of the float tensors of the main graph that depend on the values of an input.

    What is computed from shapes or constants alone is no activation, even when it is float.
    """
    return {value.name for value in data_values(graph) if value.name and value.dtype == ir.DataType.FLOAT}


def data_values(graph: ir.Graph) -> set[ir.Value]:
    """Tensors of the main graph, of any type, that depend on the values of an input."""
    carrying: set[ir.Value] = {value for value in graph.inputs if value.name not in graph.initializers}
    for node in graph:
        if node.op_type in _SHAPE_OPS and node.domain == "":
            continue
        used = [value for inner in _with_bodies(node) for value in inner.inputs]
        if any(value in carrying for value in used if value is not None):
            carrying.update(node.outputs)
    return carrying


def _with_bodies(node: ir.Node) -> list[ir.Node]:
    nodes = [node]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            nodes += list(attribute.as_graph().all_nodes())
        elif attribute.type == ir.AttributeType.GRAPHS:
            nodes += [inner for body in attribute.as_graphs() for inner in body.all_nodes()]
    return nodes
