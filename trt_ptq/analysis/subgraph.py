"""Extract the part of a model that a change affects, so that it can be run without the rest.

A change replaces inputs of some nodes. The suffix consists of all nodes that depend on them. Its other inputs are
live: they keep the value that they have in the unchanged model, and are fed from there. Residual connections make
several tensors live. Constants are not live: the suffix includes weights, and the nodes that dequantize or transpose
them. Several changes can share a suffix, where each is switched on or off in every run: to load a part of a large model
takes longer than to run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper

NodeInput = tuple[str, int]  # the first output of a node, and the index of one of its inputs


@dataclass(frozen=True, eq=False)
class _Node:
    """A node and the names of all tensors that it reads."""

    proto: onnx.NodeProto
    reads: set[str]


@dataclass(frozen=True)
class Rewiring:
    """A change of the inputs of some nodes.

    Attributes:
        inputs: Names of new float32 graph inputs.
        replacements: The tensor that each rewired node input reads instead: one of `inputs`, or another tensor of the
            model.
        switched: The same for node inputs that read it only where its switch, another new input, is true: a bool [1],
            named by `switch_of`. Where it is false, any value of shape [1] will do for the tensor.
    """

    inputs: tuple[str, ...]
    replacements: Mapping[NodeInput, str]
    switched: Mapping[NodeInput, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subgraph:
    """A part of a model that can be run on its own.

    Attributes:
        proto: The model; its inputs are those of the change and `live_inputs`.
        live_inputs: Tensors of the unchanged model that it reads.
        outputs: Names of its outputs.
    """

    proto: onnx.ModelProto
    live_inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class GraphSlicer:
    """Extracts parts of a model. Nodes with bodies (If, Loop, Scan) are kept whole."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._proto = proto
        self._nodes = [_Node(node, names_read(node)) for node in proto.graph.node]
        self._inputs = {value.name for value in proto.graph.input}
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._declared = {value.name: value for value in (*proto.graph.input, *proto.graph.value_info)}
        self._declared |= {value.name: value for value in proto.graph.output}
        self._varying = set(self._inputs)
        for node in self._nodes:
            if not self._varying.isdisjoint(node.reads):
                self._varying.update(filter(None, node.proto.output))
        self._constant_nodes = [node for node in self._nodes if not self._varying.intersection(node.proto.output)]

    def suffix(self, rewiring: Rewiring) -> Subgraph:
        """Everything that `rewiring` affects; without nodes and outputs if it affects nothing."""
        nodes = self._affected(rewiring)
        names = {name for node in nodes for name in node.proto.output if name}
        return self._extract(rewiring, nodes, [value for value in self._proto.graph.output if value.name in names])

    def layer(self, rewiring: Rewiring, output: str) -> Subgraph:
        """A single node, named by its first output; `rewiring` must change one of its inputs."""
        nodes = [node for node in self._affected(rewiring) if node.proto.output[0] == output]
        return self._extract(rewiring, nodes, [self._declared.get(output, helper.make_empty_tensor_value_info(output))])

    def observed(self, tensors: Iterable[str]) -> onnx.ModelProto:
        """The whole model with `tensors` as its outputs, except those that are its inputs."""
        outputs = [
            self._declared.get(name, helper.make_empty_tensor_value_info(name))
            for name in tensors
            if name not in self._inputs
        ]
        return self._model([node.proto for node in self._nodes], self._proto.graph.input, outputs, self._initializers)

    def _affected(self, rewiring: Rewiring) -> list[_Node]:
        """The rewired nodes, and all nodes that depend on them."""
        replacements: dict[str, dict[int, str]] = {}
        for (output, index), tensor in rewiring.replacements.items():
            replacements.setdefault(output, {})[index] = tensor
        switched: dict[str, dict[int, str]] = {}
        for (output, index), tensor in rewiring.switched.items():
            switched.setdefault(output, {})[index] = tensor
        affected: list[_Node] = []
        tensors: set[str] = set()
        for original in self._nodes:
            node, output = original, original.proto.output[0]
            if output in replacements or output in switched:
                proto = onnx.NodeProto()
                proto.CopyFrom(original.proto)
                for index, tensor in replacements.get(output, {}).items():
                    proto.input[index] = tensor
                for index, tensor in switched.get(output, {}).items():
                    read = proto.input[index]
                    proto.input[index] = f"{tensor} or {read}"
                    choice = helper.make_node("Where", [switch_of(tensor), tensor, read], [proto.input[index]])
                    affected.append(_Node(choice, names_read(choice)))
                    tensors.update(choice.output)
                node = _Node(proto, names_read(proto))
            if node is not original or not tensors.isdisjoint(node.reads):
                tensors.update(filter(None, node.proto.output))
                affected.append(node)
        return affected

    def _extract(self, rewiring: Rewiring, nodes: list[_Node], outputs: list[onnx.ValueInfoProto]) -> Subgraph:
        computed = {name for node in nodes for name in node.proto.output}
        needed = {name for node in nodes for name in node.reads} - computed
        live = sorted(needed & self._varying)
        constant_nodes = []
        for node in reversed(self._constant_nodes):
            if not needed.isdisjoint(node.proto.output):
                constant_nodes.append(node.proto)
                needed |= node.reads
        new_inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in rewiring.inputs]
        switches = map(switch_of, rewiring.switched.values())
        new_inputs += [helper.make_tensor_value_info(name, TensorProto.BOOL, None) for name in switches]
        inputs = [*new_inputs, *(self._input_of_any_shape(name) for name in live)]
        proto = self._model([*reversed(constant_nodes), *(node.proto for node in nodes)], inputs, outputs, needed)
        return Subgraph(proto, tuple(live), tuple(value.name for value in outputs))

    def _input_of_any_shape(self, name: str) -> onnx.ValueInfoProto:
        """A graph input without shape: ONNX Runtime checks the shapes of inputs, and a declared one may be wrong."""
        declared = self._declared.get(name)
        dtype = declared.type.tensor_type.elem_type if declared is not None else TensorProto.UNDEFINED
        return helper.make_tensor_value_info(name, dtype, None)

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


def switch_of(tensor: str) -> str:
    """The name of the input that switches the change to `tensor` on; see `Rewiring`."""
    return f"{tensor}.on"


def names_read(node: onnx.NodeProto) -> set[str]:
    """Names of the tensors that `node` reads, including those read or returned by its bodies."""
    names = set(filter(None, node.input))
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            names.update(value.name for value in body.output)
            for inner in body.node:
                names |= names_read(inner)
    return names
