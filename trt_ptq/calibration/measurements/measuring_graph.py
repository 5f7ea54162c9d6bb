"""The part of a model that computes what is measured of its tensors, so that no complete tensor leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common as passes

from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session

_PREFIX = "trt_ptq.measured"
_AXES_ARE_AN_INPUT = 18  # of ReduceMax, since this opset

Value = TypeVar("Value")


def last_first(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """`tensors`, which are in graph order, in the order in which their measurements should be added.

    ONNX Runtime starts with what was added last, so that each tensor is reduced, and freed, before the next ones.
    """
    return dict(reversed(list(tensors.items())))


class MeasuringGraph:
    """A graph whose outputs are computed from the tensors of `model`; at first it has none."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._part = model.to_ir()
        graph = self._part.graph
        values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
        self._tensors = {value.name: value for value in values}
        graph.outputs.clear()
        self._editor = GraphEditor(graph)

    def start_at(self, names: Iterable[str]) -> None:
        """Take these computed tensors as inputs, in place of what they are computed from."""
        for name in names:
            computed = self._tensors[name]
            given = ir.Value(name=name, type=computed.type)
            computed.name = f"{_PREFIX}.{name}.computed"
            computed.replace_all_uses_with(given)
            self._part.graph.inputs.append(given)
            self._tensors[name] = given

    def tensor(self, name: str) -> ir.Value:
        """A tensor of the model."""
        return self._tensors[name]

    def rows(self, name: str, channels: int) -> ir.Value:
        """A tensor of the model as [rows, channels]."""
        return self.node("Reshape", self.tensor(name), self.constant([-1, channels]))

    def constant(self, values: npt.ArrayLike) -> ir.Value:
        """Add a constant."""
        return self._editor.constant(_PREFIX, ir.tensor(np.asarray(values)))

    def node(self, op_type: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        """Add a node and return its output."""
        return self._editor.node(_PREFIX, op_type, *inputs, **attributes)

    def max_over(self, value: ir.Value, *axes: int) -> ir.Value:
        """Add the maximum over `axes`, which the result does not have."""
        if self._model.opset < _AXES_ARE_AN_INPUT:
            return self.node("ReduceMax", value, axes=list(axes), keepdims=0)
        return self.node("ReduceMax", value, self.constant(axes), keepdims=0)

    def add_input(self, name: str) -> ir.Value:
        """Add an int64 input of shape [1]."""
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
        self._part.graph.inputs.append(value)
        return value

    def add_output(self, value: ir.Value, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        """Make `value` the next output."""
        value.type = ir.TensorType(dtype)
        self._part.graph.outputs.append(value)

    def session(self) -> ort.InferenceSession:
        """A session that computes the outputs, in the order in which they were added.

        Raises:
            ModelError: ONNX Runtime cannot load the graph.
        """
        part = passes.RemoveUnusedNodesPass()(self._part).model
        with externalized(self._model, part) as (proto, folder):
            return create_session(proto, folder, str(self._model.path))
