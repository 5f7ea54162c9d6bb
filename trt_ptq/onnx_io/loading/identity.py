"""The identity of a model: hashes of all that decides what it computes, and of the names of its tensors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

from trt_ptq.onnx_io.domains import ONNX_DOMAINS, all_nodes
from trt_ptq.onnx_io.external_data import hash_values
from trt_ptq.provenance import ModelIdentity


def model_identity(proto: onnx.ModelProto, folder: Path) -> ModelIdentity:
    """Hash a model whose external weights are below `folder`; see `ModelIdentity`."""
    return ModelIdentity(graph_hash(proto), _weights_hash(proto, folder))


def graph_hash(proto: onnx.ModelProto) -> str:
    """Hash of opsets, nodes, attributes, tensor names, functions, inputs and outputs.

    Weights, comments, node names, and opsets that no node uses are left out.
    """
    hasher = hashlib.sha256()

    def update(kind: str, content: bytes) -> None:
        hasher.update(f"{kind}|{len(content)}|".encode() + content)

    for domain, version in sorted(_used_opsets(proto).items()):
        update("opset", f"{domain}|{version}".encode())
    for node in proto.graph.node:
        if _is_weight(node):
            continue
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        for field in ("name", "doc_string", "metadata_props"):
            bare.ClearField(field)
        update("node", bare.SerializeToString(deterministic=True))
    for function in proto.functions:
        update("function", function.SerializeToString(deterministic=True))
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            update(kind, value.name.encode() + value.type.SerializeToString(deterministic=True))
    return hasher.hexdigest()


def _used_opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """The version of each operator set that nodes outside functions use; functions import their own."""
    used = {_domain(node.domain) for node in all_nodes(proto.graph.node)}
    opsets = {_domain(entry.domain): entry.version for entry in proto.opset_import}
    return {domain: version for domain, version in opsets.items() if domain in used}


def _domain(domain: str) -> str:
    return "" if domain in ONNX_DOMAINS else domain


def _is_weight(node: onnx.NodeProto) -> bool:
    """Whether a node is a Constant with a tensor; a Constant with plain numbers counts as part of the graph."""
    return node.op_type == "Constant" and node.domain in ONNX_DOMAINS and node.attribute[0].HasField("t")


def _weights_hash(proto: onnx.ModelProto, folder: Path) -> str:
    """Hash of the weights' values, ordered by name."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if _is_weight(node):
            weights[node.output[0]] = node.attribute[0].t
    hasher = hashlib.sha256()
    for name in sorted(weights):
        hasher.update(f"{name}|".encode())
        hash_values(hasher, weights[name], folder)
    return hasher.hexdigest()
