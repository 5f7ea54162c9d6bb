"""Moves the scale of single channels from a normalization's output into the weights that read it.

A normalization ends in a multiplication of each channel by a constant. Dividing channel j there by s_j, and multiplying
row j of the weights that read it by s_j, changes what is quantized and not what is computed. Other readers of the
output (the residual Add of BERT, whose normalization stands behind it) get it multiplied by s again.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022,
equations 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.calibrators.batches import Array
from trt_ptq.graph.dataflow import activations, name_of
from trt_ptq.graph.lazy import when_written
from trt_ptq.graph.placement import plan_quantization
from trt_ptq.graph.prepared import Place
from trt_ptq.graph.scaling import Constants

_FLOAT = ir.DataType.FLOAT
_AFFINE = {"LayerNormalization": (1, 2), "RMSNormalization": (1,)}  # inputs that scale and shift the channels


@dataclass(frozen=True)
class Linear:
    """A MatMul or Gemm whose weight can be scaled: the initializer, and its axis of the input channels."""

    node: ir.Node
    weight: ir.Value
    axis: int

    @property
    def channels(self) -> int:
        assert self.weight.const_value is not None
        return int(self.weight.const_value.shape.numpy()[self.axis])


@dataclass(frozen=True)
class Pair:
    """A normalized tensor of `channels` in its last axis, the inputs (node, index) that scale and shift it, and its
    readers with weights; `quantized` are those in INT8."""

    tensor: ir.Value
    channels: int
    affine: tuple[tuple[ir.Node, int], ...]
    linears: tuple[Linear, ...]
    quantized: tuple[Linear, ...]


def find_pairs(graph: ir.Graph) -> tuple[list[Pair], list[Place]]:
    """The pairs of the main graph in its order, and the normalizations read by INT8 weights that make none."""
    in_int8 = {one.node for one in plan_quantization(graph).nodes if one.int8 and one.op_type in ("MatMul", "Gemm")}
    data = activations(graph)
    pairs, skipped = [], []
    for node in graph:
        affine = _affine_of(node) if name_of(node.outputs[0]) in data else ()
        tensor = node.outputs[0]
        readers = [use.node for use in tensor.uses() if use.idx == 0 and name_of(use.node.outputs[0]) in in_int8]
        if not affine or not readers:
            continue
        try:
            pairs.append(_pair(tensor, affine, readers))
        except _UnfitError as unfit:
            skipped.append(Place(name_of(tensor), str(unfit)))
    return pairs, skipped


class _UnfitError(Exception):
    """Why a normalization and its readers make no pair."""


def _pair(tensor: ir.Value, affine: tuple[tuple[ir.Node, int], ...], readers: list[ir.Node]) -> Pair:
    if tensor.is_graph_output():
        raise _UnfitError("it is an output of the model")
    channels = _channels(affine)
    candidates = [use.node for use in tensor.uses() if use.idx == 0]
    linears = [one for one in map(_linear, dict.fromkeys(candidates)) if one and one.channels == channels]
    while foreign := [one for one in linears if not _read_only_by(one.weight, {linear.node for linear in linears})]:
        linears = [one for one in linears if one not in foreign]
    scalable = {one.node for one in linears}
    for node in readers:
        if node not in scalable:
            raise _UnfitError(f"the weight of {name_of(node.outputs[0])!r} cannot be scaled: {_why_not(node)}")
    return Pair(tensor, channels, affine, tuple(linears), tuple(one for one in linears if one.node in readers))


def _affine_of(node: ir.Node) -> tuple[tuple[ir.Node, int], ...]:
    """The inputs that hold the constants by which `node` scales, and by which it shifts, the channels it puts out."""
    if node.domain != "":
        return ()
    if node.op_type in _AFFINE:
        return tuple(
            (node, index) for index in _AFFINE[node.op_type] if index < len(node.inputs) and node.inputs[index]
        )
    if node.op_type == "Mul":
        index = _constant_input(node)
        return () if index is None else ((node, index),)
    index = _constant_input(node) if node.op_type == "Add" else None
    shifted = None if index is None else node.inputs[1 - index]
    scaling = shifted.producer() if shifted is not None else None
    if index is None or shifted is None or scaling is None or scaling.op_type != "Mul" or scaling.domain != "":
        return ()
    alone = len(shifted.uses()) == 1 and not shifted.is_graph_output()
    scale = _constant_input(scaling) if alone else None
    return () if scale is None else ((scaling, scale), (node, index))


def _constant_input(node: ir.Node) -> int | None:
    """Which of two inputs is a constant with channels."""
    for index, value in enumerate(node.inputs):
        if value is not None and value.is_initializer() and value.shape and value.shape[-1] != 1:
            return index
    return None


def _channels(affine: tuple[tuple[ir.Node, int], ...]) -> int:
    """How many channels the constants have, all of them the same number."""
    found = set()
    for node, index in affine:
        value = node.inputs[index]
        assert value is not None
        if value.const_value is None or value.dtype != _FLOAT:
            raise _UnfitError(f"{name_of(value)!r}, by which it is scaled or shifted, is no float32 constant")
        found.add(value.const_value.shape.numpy()[-1] if value.const_value.shape else 1)
    if len(found) != 1 or 1 in found:
        raise _UnfitError("it is not scaled and shifted channel by channel")
    return int(found.pop())


def _linear(node: ir.Node) -> Linear | None:
    """The weight behind `node`, be it by a Transpose; None if it is no float32 matrix, or computed in the graph."""
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm") or node.attributes.get_int("transA"):
        return None
    weight = node.inputs[1]
    axis = 1 if node.attributes.get_int("transB") else 0
    view = weight.producer() if weight is not None else None
    if view is not None and view.op_type == "Transpose" and view.domain == "":
        if tuple(view.attributes.get_ints("perm", (1, 0))) != (1, 0):
            return None
        weight, axis = view.inputs[0], 1 - axis
    if weight is None or not weight.is_initializer() or weight.const_value is None or weight.dtype != _FLOAT:
        return None
    return Linear(node, weight, axis) if len(weight.const_value.shape) == 2 else None


def _read_only_by(weight: ir.Value, nodes: set[ir.Node]) -> bool:
    """Whether `weight` goes into the second input of `nodes` and nowhere else."""
    if weight.is_graph_output():
        return False
    for use in weight.uses():
        if use.node in nodes and use.idx == 1:
            continue
        if use.node.op_type != "Transpose" or not _read_only_by(use.node.outputs[0], nodes):
            return False
    return True


def _why_not(node: ir.Node) -> str:
    linear = _linear(node)
    if linear is None:
        return "it is no initializer"
    return f"{name_of(linear.weight)!r} is read elsewhere too, or has another number of rows"


def matrix(linear: Linear, weight: Array) -> Array:
    """`weight` with the input channels as its first axis."""
    return weight.T if linear.axis else weight


def scale_pairs(graph: ir.Graph, pairs: Iterable[tuple[Pair, npt.NDArray[np.float32]]]) -> None:
    """Divide the channels of each pair's tensor by the scales beside it, and make up for it in all that reads them.

    Weights are scaled when they are written.
    """
    constants = Constants(graph)
    for pair, scales in pairs:
        for node, index in pair.affine:
            constants.divide(node, index, scales)
        for weight, axis in {linear.weight: linear.axis for linear in pair.linears}.items():
            assert weight.const_value is not None
            rows = scales if axis == 1 else scales[:, None]
            weight.const_value = when_written(weight.const_value, partial(np.multiply, rows), _FLOAT, str(weight.name))
        nodes = {linear.node for linear in pair.linears}
        others = [use for use in pair.tensor.uses() if use.node not in nodes or use.idx != 0]
        if others:
            restored = _restored(graph, constants, pair.tensor, scales)
            for use in others:
                use.node.replace_input_with(use.idx, restored)


def _restored(graph: ir.Graph, constants: Constants, tensor: ir.Value, scales: npt.NDArray[np.float32]) -> ir.Value:
    """What `tensor` was before it was divided by `scales`, in a Mul behind it."""
    node = tensor.producer()
    assert node is not None
    name = constants.free(f"{tensor.name}.restored")
    output = ir.Value(name=name, type=ir.TensorType(_FLOAT), shape=tensor.shape)
    inputs = [tensor, constants.add(f"{tensor.name}.smoothing", scales)]
    graph.insert_after(node, ir.Node("", "Mul", inputs, outputs=[output], name=name))
    return output
