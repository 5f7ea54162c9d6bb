"""Fold weights, biases and embedding tables that are computed from constants, as runtimes do at loading.

Weights and tables behind Transpose, Reshape or Cast alone stay as they are: their quantization reads through these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import onnx
from onnx import helper, numpy_helper

from trt_ptq.onnx_io.domains import all_nodes, is_custom
from trt_ptq.onnx_io.quantized_ops import QDQ_OPS

# How many of the first inputs may be weights.
_READERS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "MatMul": 2, "Gather": 1}
_BIAS = 2  # the input of Conv, ConvTranspose and Gemm
_VIEWS = frozenset({"Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Cast"})
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"}
)


def fold_weights(proto: onnx.ModelProto, folder: Path) -> bool:
    """Replace computed weights and biases by their values, in place; `folder` holds the external weights of `proto`.

    Returns:
        Whether there were any.

    Raises:
        ModelError: ONNX Runtime cannot compute them.
    """
    producers = _constant_nodes(proto)
    readers = [node for node in proto.graph.node if not node.domain and node.output[0] not in producers]
    weights = [name for node in readers for name in node.input[: _READERS.get(node.op_type, 0)]]
    needed = [name for name in weights if not _is_view(name, producers)] + _biases(readers)
    outputs = {value.name for value in proto.graph.output}
    computed = [name for name in dict.fromkeys(needed) if name in producers and name not in outputs]
    if computed:
        proto.graph.initializer.extend(_compute(proto, computed, producers, folder))
        _remove_unused(proto, set(computed), producers)
    return bool(computed)


def _biases(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The biases of weighted nodes, and what an Add adds to a MatMul."""
    products = {node.output[0] for node in nodes if node.op_type == "MatMul"}
    biases = []
    for node in nodes:
        if node.op_type in _READERS:
            biases += node.input[_BIAS : _BIAS + 1]
        elif node.op_type == "Add" and not products.isdisjoint(node.input):
            biases += node.input
    return biases


def _constant_nodes(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The nodes of the main graph that depend on constants alone, by their outputs."""
    constants = {tensor.name for tensor in proto.graph.initializer} - {value.name for value in proto.graph.input}
    nodes: dict[str, onnx.NodeProto] = {}
    for node in proto.graph.node:
        if constants.issuperset(filter(None, node.input)) and _is_foldable(node):
            constants.update(filter(None, node.output))
            nodes.update((name, node) for name in node.output if name)
    return nodes


def _is_foldable(node: onnx.NodeProto) -> bool:
    if is_custom(node.op_type, node.domain) or node.op_type in _RANDOM | QDQ_OPS:
        return False
    return not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _is_view(name: str, producers: dict[str, onnx.NodeProto]) -> bool:
    """Whether the tensor is a constant behind views alone."""
    node = producers.get(name)
    return node is None or (node.op_type in _VIEWS and all(_is_view(read, producers) for read in node.input if read))


def _compute(
    proto: onnx.ModelProto, names: Collection[str], producers: dict[str, onnx.NodeProto], folder: Path
) -> list[onnx.TensorProto]:
    """The values of the tensors `names`, computed by ONNX Runtime."""
    from trt_ptq.onnx_io.ort_session import create_session

    needed = set(names)
    nodes = []
    for node in reversed(list({node.output[0]: node for node in producers.values()}.values())):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node.input)
    part = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    part.graph.name = "weights"
    part.graph.node.extend(reversed(nodes))
    part.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in needed)
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    values = create_session(part, folder, "the part of the model that computes its weights").run(None, {})
    return [numpy_helper.from_array(value, name) for name, value in zip(names, values, strict=True)]


def _remove_unused(proto: onnx.ModelProto, folded: set[str], producers: dict[str, onnx.NodeProto]) -> None:
    """Remove the nodes that compute `folded`, and the constants that they alone read."""
    graph = proto.graph
    kept = [node for node in graph.node if folded.isdisjoint(node.output)]
    removed = [node for node in graph.node if not folded.isdisjoint(node.output)]
    candidates: set[str] = set()
    while removed:
        candidates.update(name for node in removed for name in node.input)
        read = _names_read(kept) | {value.name for value in graph.output}
        removed = [
            node
            for node in kept
            if read.isdisjoint(node.output)
            and not candidates.isdisjoint(node.output)
            and producers.keys() >= set(filter(None, node.output))
        ]
        gone = {node.output[0] for node in removed}
        kept = [node for node in kept if node.output[0] not in gone]
    initializers = [tensor for tensor in graph.initializer if tensor.name in read or tensor.name not in candidates]
    values = [value for value in graph.value_info if value.name not in candidates]
    for field, content in (("node", kept), ("initializer", initializers), ("value_info", values)):
        graph.ClearField(field)
        getattr(graph, field).extend(content)


def _names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Names of the tensors that `nodes` and their bodies read or return."""
    names: set[str] = set()
    for node in all_nodes(nodes):
        names.update(node.input)
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                names.update(value.name for value in body.output)
    return names
