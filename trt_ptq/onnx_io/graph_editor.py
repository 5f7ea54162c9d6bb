"""New constants and nodes in a graph, under names that it does not have yet."""

from __future__ import annotations

from itertools import chain, count

import onnx_ir as ir


class GraphEditor:
    """Adds to `graph`. A name is that wanted, or ends in a number if that is taken."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._names = {value.name for value in [*graph.inputs, *graph.initializers.values()]}
        for node in graph.all_nodes():
            self._names |= {value.name for value in (*node.inputs, *node.outputs) if value is not None}

    def unique_name(self, wanted: str) -> str:
        """A name that nothing has yet."""
        name = next(name for name in chain([wanted], (f"{wanted}.{i}" for i in count(1))) if name not in self._names)
        self._names.add(name)
        return name

    def constant(self, wanted: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A new initializer."""
        name = tensor.name = self.unique_name(wanted)
        value = ir.val(name, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def node(self, wanted: str, op_type: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        """The output, of no type as yet, of a new node; it is the last one until the graph is sorted."""
        made = ir.node(op_type, inputs, attributes)
        made.outputs[0].name = self.unique_name(wanted)
        self._graph.append(made)
        return made.outputs[0]
