"""Divides the constants of a graph, and adds new ones."""

from __future__ import annotations

from itertools import chain, count

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


class Constants:
    """The small constants of one graph; names of new ones are those wanted, or end in a number if they are taken."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._names = {value.name for value in [*graph.inputs, *graph.initializers.values()]}
        self._names |= {value.name for node in graph.all_nodes() for value in node.outputs}

    def divide(self, node: ir.Node, index: int, divisors: npt.NDArray[np.floating]) -> None:
        """Divide the last axis of a float32 constant that `node` reads, or of a copy of it if others read it too."""
        value = node.inputs[index]
        assert value is not None and value.const_value is not None
        divided = (value.const_value.numpy() / divisors).astype(np.float32)
        if len(value.uses()) == 1 and not value.is_graph_output():
            value.const_value = ir.tensor(divided, name=value.name)
        else:
            node.replace_input_with(index, self.add(f"{value.name}.divided", divided))

    def add(self, wanted: str, values: npt.NDArray[np.float32]) -> ir.Value:
        """A new initializer."""
        name = self.free(wanted)
        value = ir.val(name, const_value=ir.tensor(values, name=name))
        self._graph.register_initializer(value)
        return value

    def free(self, wanted: str) -> str:
        """A name that nothing has yet."""
        name = next(name for name in chain([wanted], (f"{wanted}.{i}" for i in count(1))) if name not in self._names)
        self._names.add(name)
        return name
