"""Operators that hand INT8 on between those that compute in it: Concat, pooling, Resize.

One runs in INT8 where everything that reads it does, so that nothing gains precision from a float result.

- Concat has one scale: its inputs take the range of its output (NVIDIA's rule), wherever else they are read.
- MaxPool and Resize to the nearest pick values, so input and output have one scale: the output's if the input has no
  other reader, else the input's, which covers the output.
- AveragePool and GlobalAveragePool compute new values: the input has a range of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from trt_ptq.analysis.dataflow import DataFlow, name_of

_VIEWS = {"Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"}
_AVERAGING = {"AveragePool", "GlobalAveragePool"}
_OPS = _AVERAGING | {"Concat", "MaxPool", "Resize"}
_READ_IN_FLOAT = "not all that reads it runs in INT8"


def is_passthrough(node: ir.Node, flow: DataFlow) -> bool:
    """Whether `node` is one of these operators, on float32 activations."""
    return node.op_type in _OPS and node.domain == "" and name_of(node.outputs[0]) in flow.activations


class QdqPropagation:
    """Decides on carriers one after another, from the last in the graph to the first.

    `range_sources` maps a tensor to the one whose range it takes; `read` holds what is read in INT8 so far: inputs as
    (node, index), each of which gets Q/DQ.
    """

    def __init__(self, flow: DataFlow, read: Iterable[tuple[ir.Node, int]], why_without: Callable[[str], str | None]):
        self._flow = flow
        self._why_without = why_without
        self._read = set(read)
        self._concats: set[str] = set()  # tensors whose range a Concat has
        self.range_sources: dict[str, str] = {}

    def why_float(self, node: ir.Node) -> str | None:
        """Why `node` stays float; None if it carries INT8, which this does not note yet."""
        read_as = self._read_as(node.outputs[0])
        if not read_as:
            return _READ_IN_FLOAT
        inputs = self._data_inputs(node)
        if any(name not in self._flow.activations for name in inputs):
            return "one of its inputs is no float32 activation"
        if node.op_type == "Resize" and not _picks_values(node):
            return "it interpolates, which INT8 would coarsen"
        if node.op_type != "Concat":
            takes_over = _picks_values(node) and _is_only_reader(node)
            return self._why_without(self.range_source(read_as[0] if takes_over else inputs[0]))
        shared = self.range_source(read_as[0])
        taken = [name for name in inputs if self.range_source(name) in self._concats - {shared}]
        if taken:
            return f"its input {taken[0]!r} has the scale of another Concat"
        return self._why_without(shared)

    def propagate(self, node: ir.Node) -> list[int]:
        """Let `node` run in INT8; returns which of its inputs get Q/DQ."""
        read_as = self._read_as(node.outputs[0])
        inputs = self._data_inputs(node)
        shared = self.range_source(read_as[0])
        if node.op_type == "Concat":
            self._concats.add(shared)
            for name in inputs:
                self._tie(self.range_source(name), shared)
        elif _picks_values(node):
            if _is_only_reader(node):
                self._tie(inputs[0], shared)
            elif shared not in self._concats:
                self._tie(shared, self.range_source(inputs[0]))
        for name in read_as[1:]:
            if self.range_source(name) not in self._concats:
                self._tie(self.range_source(name), self.range_source(read_as[0]))
        indices = list(range(len(inputs)))
        self._read |= {(node, index) for index in indices}
        return indices

    def range_source(self, tensor: str) -> str:
        """The tensor whose range `tensor` takes: itself, if no other."""
        while tensor in self.range_sources:
            tensor = self.range_sources[tensor]
        return tensor

    def _tie(self, tensor: str, to: str) -> None:
        if tensor != to:
            self.range_sources[tensor] = to

    def _data_inputs(self, node: ir.Node) -> list[str]:
        return [name_of(value) for value in (node.inputs if node.op_type == "Concat" else node.inputs[:1])]

    def _read_as(self, value: ir.Value) -> list[str]:
        """The names, `value` or views of it, under which it is read in INT8; none if some of it is read in float."""
        if value.is_graph_output() or not value.uses():
            return []
        names: list[str] = []
        for node, index in value.uses():
            if (node, index) in self._read:
                names.append(name_of(value))
            elif node.op_type in _VIEWS and node.domain == "" and index == 0:
                further = self._read_as(node.outputs[0])
                if not further:
                    return []
                names += further
            else:
                return []
        return list(dict.fromkeys(names))


def _picks_values(node: ir.Node) -> bool:
    """Whether the output's values are all among the input's."""
    return node.op_type == "MaxPool" or (
        node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "nearest"
    )


def _is_only_reader(node: ir.Node) -> bool:
    data = node.inputs[0]
    return data is not None and len(data.uses()) == 1 and not data.is_graph_output()
