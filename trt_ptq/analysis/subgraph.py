"""The part of a model that a change reaches, to be run without the rest.

A change replaces what some nodes read. Everything that depends on that is the suffix; what else the suffix reads is
live: it has the value that it has in the unchanged model, and is fed from there. A residual makes several tensors
live. What depends on no input of the model is no live tensor but goes with the suffix: weights, with what
dequantizes or transposes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

Use = tuple[str, int]  # a node, by its first output, and the index of one of its inputs


@dataclass(frozen=True)
class Rewiring:
    """A change of what some nodes read.

    Attributes:
        inputs: names of the new float32 graph inputs.
        replacements: for each rewired node input, the tensor it reads instead: one of `inputs`, or another tensor of
            the model.
    """

    inputs: tuple[str, ...]
    replacements: Mapping[Use, str]


@dataclass(frozen=True)
class Subgraph:
    """A model whose inputs are those of a change, and the tensors `live_inputs`; its outputs are named in `outputs`."""

    proto: onnx.ModelProto
    live_inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class GraphSlicer:
    """A model in order of computation, to take parts out of. Bodies of If, Loop and Scan are never cut."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._proto = proto
        self._nodes = [(node, names_read(node)) for node in proto.graph.node]
        self._inputs = {value.name for value in proto.graph.input}
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._declared = {value.name: value for value in (*proto.graph.input, *proto.graph.value_info)}
        self._declared |= {value.name: value for value in proto.graph.output}
        self._varying = set(self._inputs)
        for node, read in self._nodes:
            if not self._varying.isdisjoint(read):
                self._varying.update(filter(None, node.output))
        self._fixed = [one for one in self._nodes if not self._varying.intersection(one[0].output)]

    def suffix(self, rewiring: Rewiring) -> Subgraph:
        """What `rewiring` reaches; no node and no output, if that is nothing."""
        reached: set[str] = set()
        nodes = self._reached(rewiring, reached)
        return self._part(rewiring, nodes, [one for one in self._proto.graph.output if one.name in reached])

    def layer(self, rewiring: Rewiring, node: str) -> Subgraph:
        """`node` (by its first output) alone; `rewiring` is of what it reads."""
        nodes = [one for one in self._reached(rewiring, set()) if one[0].output[0] == node]
        return self._part(rewiring, nodes, [self._declared.get(node, helper.make_empty_tensor_value_info(node))])

    def observed(self, tensors: Iterable[str]) -> onnx.ModelProto:
        """The whole model with `tensors` as its outputs, but those that are its inputs."""
        outputs = [
            self._declared.get(name, helper.make_empty_tensor_value_info(name))
            for name in tensors
            if name not in self._inputs
        ]
        return self._model([node for node, _ in self._nodes], self._proto.graph.input, outputs, self._initializers)

    def _reached(self, rewiring: Rewiring, reached: set[str]) -> list[tuple[onnx.NodeProto, set[str]]]:
        """Nodes with a use that changes, and what depends on them; `reached` is given their outputs."""
        changed: dict[str, dict[int, str]] = {}
        for (name, index), instead in rewiring.replacements.items():
            changed.setdefault(name, {})[index] = instead
        found = []
        for node, read in self._nodes:
            rewired, names = node, read
            if node.output[0] in changed:
                rewired = onnx.NodeProto()
                rewired.CopyFrom(node)
                for index, instead in changed[node.output[0]].items():
                    rewired.input[index] = instead
                names = names_read(rewired)
            if rewired is not node or not reached.isdisjoint(names):
                reached.update(filter(None, node.output))
                found.append((rewired, names))
        return found

    def _part(
        self, rewiring: Rewiring, nodes: list[tuple[onnx.NodeProto, set[str]]], outputs: list[onnx.ValueInfoProto]
    ) -> Subgraph:
        made = {name for node, _ in nodes for name in node.output}
        needed = {name for _, read in nodes for name in read} - made
        live = sorted(needed & self._varying)
        fixed = []
        for node, read in reversed(self._fixed):
            if not needed.isdisjoint(node.output):
                fixed.append(node)
                needed |= read
        read_inputs = [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in rewiring.inputs]
        inputs = [*read_inputs, *(self._without_shape(name) for name in live)]
        proto = self._model([*reversed(fixed), *(node for node, _ in nodes)], inputs, outputs, needed)
        return Subgraph(proto, tuple(live), tuple(value.name for value in outputs))

    def _without_shape(self, name: str) -> onnx.ValueInfoProto:
        """As an input: a shape that was declared wrongly does not matter inside a model, but would be checked here."""
        declared = self._declared.get(name)
        kind = declared.type.tensor_type.elem_type if declared is not None else TensorProto.UNDEFINED
        return helper.make_tensor_value_info(name, kind, None)

    def _model(
        self,
        nodes: Iterable[onnx.NodeProto],
        inputs: Iterable[onnx.ValueInfoProto],
        outputs: Iterable[onnx.ValueInfoProto],
        initializers: Iterable[str],
    ) -> onnx.ModelProto:
        model = onnx.ModelProto(ir_version=self._proto.ir_version)
        model.opset_import.extend(self._proto.opset_import)
        model.functions.extend(self._proto.functions)
        model.graph.name = "part"
        model.graph.node.extend(nodes)
        model.graph.input.extend(inputs)
        model.graph.output.extend(outputs)
        names = self._initializers.keys() & set(initializers)
        model.graph.initializer.extend(self._initializers[name] for name in sorted(names))
        return model


def names_read(node: onnx.NodeProto) -> set[str]:
    """Names that `node` reads; for one with bodies also all that is read or returned in them."""
    read = set(filter(None, node.input))
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            read.update(value.name for value in body.output)
            for inner in body.node:
                read |= names_read(inner)
    return read
