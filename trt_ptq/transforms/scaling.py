"""Multiplies and divides the constants of a graph, and tells the tensors that are scaled along with them."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.lazy_tensor import lazy_map
from trt_ptq.types import Array


def multiplied(tensor: ir.TensorProtocol, factors: npt.NDArray[np.float32]) -> ir.LazyTensor:
    """`tensor` times `factors`, which broadcast to its shape; computed when the model is written."""
    return lazy_map(tensor, partial(np.multiply, factors), ir.DataType.FLOAT, str(tensor.name))


def divide(editor: GraphEditor, node: ir.Node, index: int, divisors: npt.NDArray[np.floating], axis: int = -1) -> None:
    """Divide a float32 constant that `node` reads along its last axis, or along the first axis (0) of a matrix.

    Computed when the model is written; if other nodes read the constant too, computed now, on a copy.
    """
    value = node.inputs[index]
    assert value is not None and value.const_value is not None
    broadcast = divisors if axis == -1 else divisors[:, None]

    def divided(array: Array) -> Array:
        quotients: npt.NDArray[np.float32] = (array / broadcast).astype(np.float32)
        return quotients

    if len(value.uses()) == 1 and not value.is_graph_output():
        value.const_value = lazy_map(value.const_value, divided, ir.DataType.FLOAT, str(value.name))
    else:
        copy = editor.constant(f"{value.name}.divided", ir.tensor(divided(value.const_value.numpy())))
        node.replace_input_with(index, copy)


def names_up_to(first: ir.Value, last: ir.Value) -> set[str]:
    """The tensors from `first` to `last`, both included, along a chain in which each has one reader."""
    names = {str(last.name)}
    while first is not last:
        names.add(str(first.name))
        (use,) = first.uses()
        first = use.node.outputs[0]
    return names
