"""Add constants and nodes to a graph under unique names."""

from __future__ import annotations

from itertools import chain, count

import onnx_ir as ir


class GraphEditor:
    """Adds values and nodes to a graph.

    A preferred name that is in use already gets a numeric suffix (`name.1`).
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._names = {value.name for value in [*graph.inputs, *graph.initializers.values()]}
        for node in graph.all_nodes():
            self._names |= {value.name for value in (*node.inputs, *node.outputs) if value is not None}

    def unique_name(self, preferred: str) -> str:
        """Reserve and return a name that no value of the graph has."""
        candidates = chain([preferred], (f"{preferred}.{number}" for number in count(1)))
        name = next(name for name in candidates if name not in self._names)
        self._names.add(name)
        return name

    def constant(self, preferred_name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Add an initializer."""
        name = tensor.name = self.unique_name(preferred_name)
        value = ir.val(name, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def node(self, preferred_name: str, op_type: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        """Append a node and return its output, whose type is not set; sort the graph afterwards."""
        node = ir.node(op_type, inputs, attributes)
        node.outputs[0].name = self.unique_name(preferred_name)
        self._graph.append(node)
        return node.outputs[0]
