"""Which outputs of a model join several quantities, such as boxes in pixels and scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import onnx
from onnx import shape_inference

_PASS_ON = {"Identity", "Cast"}


@dataclass(frozen=True)
class Joint:
    """Where an output joins its parts: along `axis`, part i ends before index `ends[i]`."""

    axis: int
    ends: tuple[int, ...]


def joined_outputs(model: onnx.ModelProto) -> dict[str, Joint]:
    """Find the outputs of `model` that a Concat joins, possibly transposed, and where their parts lie.

    Parts whose length is not known without the data are not told apart, nor is what is joined along the batch axis.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    found = {output.name: _last_concat(output.name, producers) for output in model.graph.output}
    if not any(found.values()):
        return {}
    shapes = _shapes(model)
    joints = {name: _joint(*concat, shapes) for name, concat in found.items() if concat is not None}
    return {name: joint for name, joint in joints.items() if joint is not None}


def _last_concat(
    name: str, producers: dict[str, onnx.NodeProto]
) -> tuple[onnx.NodeProto, list[list[int] | None]] | None:
    """The Concat that gives an output, and the permutations after it, the last one first."""
    permutations: list[list[int] | None] = []
    while (node := producers.get(name)) is not None:
        if node.op_type == "Concat":
            return node, permutations
        if node.op_type == "Transpose":
            permutations.append(next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), None))
        elif node.op_type not in _PASS_ON:
            return None
        name = node.input[0]
    return None


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # no shapes, or too large for protobuf: what the file declares has to do
        graph = model.graph
    return {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _joint(
    concat: onnx.NodeProto, permutations: list[list[int] | None], shapes: dict[str, list[int | None]]
) -> Joint | None:
    parts = [shapes.get(name) for name in concat.input]
    rank = next((len(shape) for shape in parts if shape), 0)
    axis = next(entry.i for entry in concat.attribute if entry.name == "axis")
    if not rank or len(set(concat.input)) < 2 or axis % rank == 0:
        return None
    axis %= rank
    lengths = [shape[axis] if shape and len(shape) == rank else None for shape in parts]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return None
    for permutation in reversed(permutations):
        axis = (permutation or list(reversed(range(rank)))).index(axis)
    return Joint(axis, tuple(accumulate(known)))
