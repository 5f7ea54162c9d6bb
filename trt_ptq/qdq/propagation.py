"""Operators that propagate quantization between INT8 kernels: Concat, pooling, Resize.

Such an operator runs in INT8 if everything that reads its output does: then no reader needs a float result.

- Concat has one scale: its inputs use the range of its output (NVIDIA's rule), for all of their readers.
- MaxPool and nearest-neighbor Resize select values, so input and output share a scale: that of the output if the input
  has no other reader, else that of the input, which covers the output.
- AveragePool and GlobalAveragePool compute new values: input and output have separate scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from trt_ptq.analysis.dataflow import DataFlow, name_of
from trt_ptq.analysis.op_types import RESHAPING_OPS

_OPS = {"AveragePool", "GlobalAveragePool", "Concat", "MaxPool", "Resize"}


def is_passthrough(node: ir.Node, flow: DataFlow) -> bool:
    """Whether `node` is one of these operators, on float32 activations."""
    return node.op_type in _OPS and node.domain == "" and name_of(node.outputs[0]) in flow.activations


class QdqPropagation:
    """Decides which of these operators run in INT8; query nodes in reverse graph order.

    Attributes:
        range_sources: Maps an activation to the tensor whose range it uses, if not its own.
    """

    def __init__(
        self,
        flow: DataFlow,
        quantized_inputs: Iterable[tuple[ir.Node, int]],
        missing_range: Callable[[str], str | None],
    ) -> None:
        """Start from the inputs, as (node, index), that are read in INT8.

        Args:
            flow: The data flow of the graph.
            quantized_inputs: The node inputs that get Q/DQ so far.
            missing_range: Returns why a tensor has no range, or None if it has one.
        """
        self._flow = flow
        self._missing_range = missing_range
        self._quantized_inputs = set(quantized_inputs)
        self._concat_ranges: set[str] = set()  # tensors whose range the inputs of a Concat use
        self.range_sources: dict[str, str] = {}

    def exclusion_reason(self, node: ir.Node) -> str | None:
        """Why `node` does not run in INT8; None if it can. Changes nothing; see `propagate`."""
        quantized_names = self._quantized_names(node.outputs[0])
        if not quantized_names:
            return "not all of its consumers run in INT8"
        inputs = self._data_inputs(node)
        if any(name not in self._flow.activations for name in inputs):
            return "one of its inputs is not a float32 activation"
        if node.op_type == "Resize" and not _selects_values(node):
            return "it interpolates, which loses accuracy in INT8"
        if node.op_type != "Concat":
            uses_output_range = _selects_values(node) and _is_only_reader(node)
            return self._missing_range(self.range_source(quantized_names[0] if uses_output_range else inputs[0]))
        shared = self.range_source(quantized_names[0])
        conflicting = [name for name in inputs if self.range_source(name) in self._concat_ranges - {shared}]
        if conflicting:
            return f"its input {conflicting[0]!r} has the scale of another Concat"
        return self._missing_range(shared)

    def propagate(self, node: ir.Node) -> list[int]:
        """Let `node` run in INT8; return the indices of the inputs that get Q/DQ."""
        quantized_names = self._quantized_names(node.outputs[0])
        inputs = self._data_inputs(node)
        shared = self.range_source(quantized_names[0])
        if node.op_type == "Concat":
            self._concat_ranges.add(shared)
            for name in inputs:
                self._use_range(self.range_source(name), shared)
        elif _selects_values(node):
            if _is_only_reader(node):
                self._use_range(inputs[0], shared)
            elif shared not in self._concat_ranges:
                self._use_range(shared, self.range_source(inputs[0]))
        for name in quantized_names[1:]:
            if self.range_source(name) not in self._concat_ranges:
                self._use_range(self.range_source(name), self.range_source(quantized_names[0]))
        indices = list(range(len(inputs)))
        self._quantized_inputs |= {(node, index) for index in indices}
        return indices

    def range_source(self, tensor: str) -> str:
        """The tensor whose range `tensor` uses: itself by default."""
        while tensor in self.range_sources:
            tensor = self.range_sources[tensor]
        return tensor

    def _use_range(self, tensor: str, source: str) -> None:
        if tensor != source:
            self.range_sources[tensor] = source

    def _data_inputs(self, node: ir.Node) -> list[str]:
        return [name_of(value) for value in (node.inputs if node.op_type == "Concat" else node.inputs[:1])]

    def _quantized_names(self, value: ir.Value) -> list[str]:
        """The names under which `value` or a reshaped form of it is read in INT8; empty if any reader is float."""
        if value.is_graph_output() or not value.uses():
            return []
        names: list[str] = []
        for node, index in value.uses():
            if (node, index) in self._quantized_inputs:
                names.append(name_of(value))
            elif node.op_type in RESHAPING_OPS and node.domain == "" and index == 0:
                further = self._quantized_names(node.outputs[0])
                if not further:
                    return []
                names += further
            else:
                return []
        return list(dict.fromkeys(names))


def _selects_values(node: ir.Node) -> bool:
    """Whether every output value is one of the input values."""
    return node.op_type == "MaxPool" or (
        node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "nearest"
    )


def _is_only_reader(node: ir.Node) -> bool:
    data = node.inputs[0]
    return data is not None and len(data.uses()) == 1 and not data.is_graph_output()
