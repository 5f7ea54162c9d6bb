"""Finds the residual stream of a transformer: embeddings, to which layers add, and which they read through RMSNorm.

A rotation of the stream passes every RMSNorm, as it keeps the mean of the squares, once the weight of the norm is in
the layers behind it. LayerNorm subtracts a mean, which a rotation does not keep.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.transforms.linear_layers import Linear, linear_of

_RMS_NORMS = ("RMSNormalization", "SimplifiedLayerNormalization")


class UnfitError(Exception):
    """Why a stream cannot be rotated."""


@dataclass(frozen=True)
class Norm:
    """An RMSNorm of the stream: its `weight`, the tensors in it, and the layers that read it."""

    weight: ir.Value
    tensors: tuple[ir.Value, ...]
    readers: tuple[Linear, ...]


@dataclass(frozen=True)
class ResidualStream:
    """A residual stream.

    Attributes:
        embeddings: the weight [vocabulary, width] that it begins with.
        tensors: the stream after each layer.
        norms: all that read it.
        writers: the layers whose outputs are added to it.
    """

    embeddings: ir.Value
    tensors: tuple[ir.Value, ...]
    norms: tuple[Norm, ...]
    writers: tuple[Linear, ...]

    @property
    def width(self) -> int:
        return _dims(self.embeddings)[1]


def find_stream(gather: ir.Node) -> ResidualStream:
    """The stream that begins with the embeddings that `gather` reads.

    Raises:
        UnfitError: something reads or writes the stream, a norm or a weight that is not known to fit.
    """
    embeddings = gather.inputs[0]
    assert embeddings is not None
    width = _dims(embeddings)[1]
    tensors, norms, writers = [gather.outputs[0]], list[Norm](), list[Linear]()
    for tensor in tensors:  # grows
        if tensor.is_graph_output():
            raise UnfitError(f"{name_of(tensor)!r} is an output of the model")
        for node in dict.fromkeys(use.node for use in tensor.uses()):
            if node.op_type == "Add":
                total = node.outputs[0]
                writers.append(_writer(node.inputs[1] if node.inputs[0] is tensor else node.inputs[0], node, width))
                if total not in tensors:
                    tensors.append(total)
            elif node.op_type == "Pow" or node.op_type in _RMS_NORMS:
                norms.append(_norm(tensor, node, width))
    inside = {value for norm in norms for value in norm.tensors}
    for tensor in tensors:
        for use in tensor.uses():
            if use.node.op_type != "Add" and use.node.outputs[0] not in inside:
                raise UnfitError(f"{use.node.op_type} {name_of(use.node.outputs[0])!r} reads it")
    if not norms or not writers:
        raise UnfitError("no layer reads it through an RMSNorm")
    _check_unshared(gather, norms, writers)
    return ResidualStream(embeddings, tuple(tensors), tuple(norms), tuple(writers))


def embedding_gathers(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that read rows of a float32 matrix, and to whose outputs something is added."""
    return [
        node
        for node in graph
        if node.op_type == "Gather"
        and node.domain == ""
        and node.attributes.get_int("axis", 0) == 0
        and (weight := node.inputs[0]) is not None
        and weight.const_value is not None
        and weight.dtype == ir.DataType.FLOAT
        and len(_dims(weight)) == 2
        and any(use.node.op_type == "Add" for use in node.outputs[0].uses())  # unlike tables of cosines and sines
    ]


def _dims(weight: ir.Value) -> tuple[int, ...]:
    assert weight.const_value is not None
    return tuple(int(size) for size in weight.const_value.shape.numpy())


def _writer(added: ir.Value | None, add: ir.Node, width: int) -> Linear:
    """The layer without a bias whose output is added to the stream, and read by nothing else."""
    node = added.producer() if added is not None else None
    linear = None if node is None else linear_of(node)
    if added is None or linear is None or (linear.node.op_type == "Gemm" and len(linear.node.inputs) > 2):
        raise UnfitError(f"Add {name_of(add.outputs[0])!r} adds something else than a linear layer without bias to it")
    if not _has_one_reader(added) or _dims(linear.weight)[1 - linear.axis] != width:
        raise UnfitError(f"{name_of(added)!r} is read elsewhere, or has another width")
    return linear


def _norm(tensor: ir.Value, node: ir.Node, width: int) -> Norm:
    """The RMSNorm that begins with `node`."""
    inside = [node.outputs[0]] if node.op_type in _RMS_NORMS else _decomposed(tensor, node)
    last = inside[-1].producer()
    assert last is not None
    weight = next((value for value in last.inputs if value is not None and value.const_value is not None), None)
    if weight is None or _dims(weight) != (width,) or weight.dtype != ir.DataType.FLOAT:
        raise UnfitError(f"{name_of(inside[-1])!r} has no float32 weight of the width of the stream")
    readers = []
    for use in inside[-1].uses():
        linear = linear_of(use.node) if use.idx == 0 else None
        if linear is None or linear.channels != width:
            raise UnfitError(f"{use.node.op_type} {name_of(use.node.outputs[0])!r} reads {name_of(inside[-1])!r}")
        readers.append(linear)
    if not readers or any(value.is_graph_output() for value in inside):
        raise UnfitError(f"{name_of(inside[-1])!r} is read by no layer, or the norm has an output of the model")
    return Norm(weight, tuple(inside), tuple(readers))


def _decomposed(tensor: ir.Value, power: ir.Node) -> list[ir.Value]:
    """The tensors of x / sqrt(mean(x^2) + epsilon) * weight, from the square to the end."""
    values = [power.outputs[0]]
    for op_types in (("ReduceMean",), ("Add",), ("Sqrt",), ("Reciprocal", "Div"), ("Mul",), ("Mul",)):
        readers = [use.node for use in values[-1].uses()]
        if len(readers) != 1 or readers[0].op_type not in op_types:
            raise UnfitError(f"Pow {name_of(power.outputs[0])!r} reads it, and belongs to no RMSNorm")
        values.append(readers[0].outputs[0])
    _, mean, shifted, _, inverse, unit, _ = (value.producer() for value in values)
    assert mean and shifted and inverse and unit
    fits = (
        _is_scalar(power.inputs[1], 2)
        and _is_last_axis(mean)
        and any(
            value is not None and value.const_value is not None and value.const_value.size == 1
            for value in shifted.inputs
        )
        and (inverse.op_type == "Reciprocal" or _is_scalar(inverse.inputs[0], 1))
        and tensor in unit.inputs
    )
    if not fits:
        raise UnfitError(f"Pow {name_of(power.outputs[0])!r} reads it, and belongs to no RMSNorm")
    return values


def _is_scalar(value: ir.Value | None, number: float) -> bool:
    constant = None if value is None else value.const_value
    return constant is not None and constant.size == 1 and float(constant.numpy().item()) == number


def _is_last_axis(mean: ir.Node) -> bool:
    """Whether the node takes the mean over the last axis, and keeps it."""
    axes = list(mean.attributes.get_ints("axes", ()))
    if len(mean.inputs) > 1 and mean.inputs[1] is not None and mean.inputs[1].const_value is not None:
        axes = np.atleast_1d(mean.inputs[1].const_value.numpy()).tolist()
    return axes == [-1] and mean.attributes.get_int("keepdims", 1) == 1


def _check_unshared(gather: ir.Node, norms: list[Norm], writers: list[Linear]) -> None:
    """Make sure that no weight serves two purposes; one head may share that of the embeddings, and gets a copy."""
    embeddings = gather.inputs[0]
    assert embeddings is not None
    readers = [linear for norm in norms for linear in norm.readers]
    for linear in (*readers, *writers):
        weight, operand = linear.weight, linear.operand
        is_tied = weight is embeddings and linear in readers
        if not (is_tied or _has_one_reader(weight)) or weight.is_graph_output():
            raise UnfitError(f"the weight {name_of(weight)!r} is read by several layers")
        if operand is not weight and not _has_one_reader(operand):
            raise UnfitError(f"the weight {name_of(weight)!r} is read by several layers")
    last_nodes = {norm.tensors[-1].producer() for norm in norms}
    for norm in norms:  # which may share one
        if not {use.node for use in norm.weight.uses()} <= last_nodes or norm.weight.is_graph_output():
            raise UnfitError(f"the weight {name_of(norm.weight)!r} is read by other nodes than norms of the stream")
    heads = [linear for linear in readers if linear.weight is embeddings]
    if len(embeddings.uses()) != 1 + len(heads) or len(heads) > 1 or embeddings.is_graph_output():
        raise UnfitError(f"the weight {name_of(embeddings)!r} is read by several layers")


def _has_one_reader(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()
