"""Cuts an optimized graph into segments that run one after the other.

ONNX Runtime keeps all outputs of a session until it has run. Between two segments, observed tensors are counted while
they are in the processor's cache, and then their memory is used again. And a convolution with a residual (its fourth
input) writes its result over that input, unless it is an output of the same session: then ONNX Runtime copies it first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper

BLOCKED_DOMAIN = "com.microsoft.nchwc"
_MAX_SEGMENTS = 32  # a session each, with threads of its own

Nodes = Sequence[onnx.NodeProto]


@dataclass(frozen=True)
class Segment:
    """A part of a graph.

    Attributes:
        proto: The part. Its inputs are inputs of the graph and outputs of earlier segments.
        observed: Those of its outputs that the graph outputs; only later segments need the others.
        released: Tensors that no later segment reads, of this segment and earlier ones.
        overwritten: For observed outputs of convolutions: the residual, which nothing else reads from here on.
    """

    proto: onnx.ModelProto
    observed: tuple[str, ...]
    released: frozenset[str] = frozenset()
    overwritten: Mapping[str, str] = field(default_factory=dict)


def whole(proto: onnx.ModelProto) -> Segment:
    """Return a graph as a single segment."""
    return Segment(proto, tuple(value.name for value in proto.graph.output))


def cut(proto: onnx.ModelProto, threads: int) -> list[Segment]:
    """Cut a graph into up to 32 segments, or 64 to separate residuals.

    Each has an observed tensor or more for each of the `threads` that count them. The graph is cut only where all
    tensors in use are tensors of numbers, of known type. Nodes that no observed tensor needs are left out.

    Args:
        proto: An optimized graph; its nodes are in an order in which they can run.
        threads: Number of threads that run each segment, and then count its observed tensors.
    """
    graph = proto.graph
    observed = {value.name: value for value in graph.output}
    types = _types(graph)
    least = max(threads, math.ceil(len(observed) / _MAX_SEGMENTS))
    parts = list(_parts(graph, _needed(graph), types.keys(), least))
    given = {value.name: value for value in graph.input}
    made_in = dict.fromkeys(given, -1)
    made_in |= {tensor.name: 0 for tensor in graph.initializer if tensor.name in observed}  # computed by optimization
    made_in |= {name: index for index, nodes in enumerate(parts) for node in nodes for name in node.output if name}
    last_read = {name: index for index, nodes in enumerate(parts) for name in names_read(nodes)}
    frame = _without(proto, "node", "input", "output", "initializer", "value_info")
    segments = []
    for index, nodes in enumerate(parts):
        read = Counter(names_read(nodes))
        inputs = [name for name in read if made_in.get(name, index) < index]
        outputs = [
            name
            for name, part in made_in.items()
            if part == index and (name in observed or last_read.get(name, index) > index)
        ]
        part = onnx.ModelProto()
        part.CopyFrom(frame)
        part.graph.node.extend(nodes)
        part.graph.initializer.extend(
            tensor for tensor in graph.initializer if tensor.name in read or tensor.name in outputs
        )
        part.graph.input.extend(
            given.get(name) or helper.make_tensor_value_info(name, types[name], None) for name in inputs
        )
        part.graph.output.extend(
            observed.get(name) or helper.make_tensor_value_info(name, types[name], None) for name in outputs
        )
        overwritten = {
            node.output[0]: residual
            for node in nodes
            if (residual := _residual(node)) in observed
            and node.output[0] in observed
            and made_in[residual] < index == last_read[residual]
            and read[residual] == 1
        }
        released = frozenset(name for name, made in made_in.items() if max(made, last_read.get(name, made)) == index)
        segments.append(Segment(part, tuple(filter(observed.__contains__, outputs)), released, overwritten))
    return segments


def names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Names of the tensors that `nodes` read, subgraphs included, which may return such a tensor unchanged."""
    for node in nodes:
        yield from filter(None, node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from names_read(body.node)
                yield from (value.name for value in body.output)


def _needed(graph: onnx.GraphProto) -> Nodes:
    """The nodes that the outputs depend on. ONNX Runtime leaves others in place if a removed If read their results."""
    needed: list[onnx.NodeProto] = []
    read = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            needed.append(node)
            read.update(names_read([node]))
    return needed[::-1]


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    """Element types of the tensors that can pass from one segment to another."""
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    blocked: set[str] = set()
    for node in graph.node:
        if node.domain == BLOCKED_DOMAIN:
            types |= dict.fromkeys(node.output, TensorProto.FLOAT)
        elif not blocked.isdisjoint(node.input):  # a sum or an activation, whose result ONNX Runtime gives no type
            types = dict.fromkeys(node.output, TensorProto.FLOAT) | types
        else:
            continue
        if node.op_type != "ReorderOutput":
            blocked.update(filter(None, node.output))
    return {name: kind for name, kind in types.items() if kind not in (TensorProto.UNDEFINED, TensorProto.STRING)}


def _parts(graph: onnx.GraphProto, nodes: Nodes, passable: AbstractSet[str], least: int) -> Iterator[Nodes]:
    """Cut after `least` observed tensors, and after half as many before a node whose residual was used just now."""
    observed = {value.name for value in graph.output}
    last_read = {name: index for index, node in enumerate(nodes) for name in names_read([node])}
    in_use = {value.name for value in graph.input if value.name in last_read}
    part: list[onnx.NodeProto] = []
    used: set[str] = set()
    made = 0  # observed tensors of `part`
    for index, node in enumerate(nodes):
        enough = made >= least or (2 * made >= least and _residual(node) in observed & used)
        if enough and in_use <= passable:
            yield part
            part, used, made = [], set(), 0
        part.append(node)
        made += sum(name in observed for name in node.output)
        used.update(node.output, names_read([node]))
        in_use = {name for name in in_use.union(node.output) if last_read.get(name, -1) > index}
    yield part


def _residual(node: onnx.NodeProto) -> str:
    """The tensor that a convolution adds to its result; empty if there is none."""
    blocked = node.op_type == "Conv" and node.domain == BLOCKED_DOMAIN
    return node.input[3] if blocked and len(node.input) > 3 else ""


def _without(proto: onnx.ModelProto, *fields: str) -> onnx.ModelProto:
    frame = onnx.ModelProto()
    frame.CopyFrom(proto)
    for name in fields:
        frame.graph.ClearField(name)
    return frame
