"""Multiplies and divides the constants of a graph, and adds new ones."""

from __future__ import annotations

from functools import partial
from itertools import chain, count

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.calibrators.batches import Array
from trt_ptq.graph.lazy import when_written


def multiplied(tensor: ir.TensorProtocol, factors: npt.NDArray[np.float32]) -> ir.LazyTensor:
    """`tensor` times `factors`, which broadcast to its shape, computed when it is written."""
    return when_written(tensor, partial(np.multiply, factors), ir.DataType.FLOAT, str(tensor.name))


class Constants:
    """The small constants of one graph; names of new ones are those wanted, or end in a number if they are taken."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._names = {value.name for value in [*graph.inputs, *graph.initializers.values()]}
        self._names |= {value.name for node in graph.all_nodes() for value in node.outputs}

    def divide(self, node: ir.Node, index: int, divisors: npt.NDArray[np.floating], axis: int = -1) -> None:
        """Divide a float32 constant that `node` reads along its last axis, or along the first (0) of a matrix.

        Done when it is written; at once, and to a copy, if others read it too.
        """
        value = node.inputs[index]
        assert value is not None and value.const_value is not None
        spread = divisors if axis == -1 else divisors[:, None]

        def divided(array: Array) -> Array:
            quotients: npt.NDArray[np.float32] = (array / spread).astype(np.float32)
            return quotients

        if len(value.uses()) == 1 and not value.is_graph_output():
            value.const_value = when_written(value.const_value, divided, ir.DataType.FLOAT, str(value.name))
        else:
            node.replace_input_with(index, self.add(f"{value.name}.divided", divided(value.const_value.numpy())))

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
