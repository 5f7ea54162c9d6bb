"""Operator sets: the long name of ONNX's own one, and nodes that only TensorRT's plugins know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import defs, helper, version_converter

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.external_data import SMALL_BYTES

ONNX_DOMAINS = ("", "ai.onnx")  # both names of the default operator set
_STANDARD_DOMAINS = ("", "ai.onnx.ml")
_RUNTIME_DOMAINS = "com.microsoft"  # and those that start with it: ONNX Runtime's own operators
_PLUGIN_DOMAIN = "trt.plugins"  # any domain that ONNX's checker does not know


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """`nodes` and all nodes in their bodies."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from all_nodes(body.node)


def model_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes of the model, those of its functions included."""
    yield from all_nodes(proto.graph.node)
    for function in proto.functions:
        yield from all_nodes(function.node)


def clear_empty_domains(proto: onnx.ModelProto) -> bool:
    """Drop domains that are written out but empty, which mean the same; return whether there were any."""
    empty = [node for node in model_nodes(proto) if node.HasField("domain") and not node.domain]
    for node in empty:
        node.ClearField("domain")
    return bool(empty)


def is_custom(op_type: str, domain: str) -> bool:
    """Whether an operator is no ONNX operator; TensorRT finds plugins by name, in the default domain too."""
    return domain not in _STANDARD_DOMAINS or not defs.has(op_type, domain)


def is_runnable(op_type: str, domain: str) -> bool:
    """Whether ONNX Runtime may have the operator: TensorRT's plugins are not."""
    return not is_custom(op_type, domain) or domain.startswith(_RUNTIME_DOMAINS)


def runnable_part(proto: onnx.ModelProto, *, large_weights: bool = True) -> onnx.ModelProto:
    """A copy of the nodes that ONNX Runtime can run, with the weights, and without outputs and declared shapes.

    Without `large_weights` these are inputs instead, and are not copied.
    """
    part = onnx.ModelProto(ir_version=proto.ir_version, functions=proto.functions, opset_import=proto.opset_import)
    part.graph.name = "part"
    part.graph.input.extend(proto.graph.input)
    for tensor in proto.graph.initializer:
        if large_weights or not (len(tensor.raw_data) > SMALL_BYTES or tensor.data_location == tensor.EXTERNAL):
            part.graph.initializer.append(tensor)
        elif all(value.name != tensor.name for value in proto.graph.input):
            part.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    available = {value.name for value in (*proto.graph.input, *proto.graph.initializer)}
    functions = {(function.domain, function.name) for function in proto.functions}
    for node in proto.graph.node:
        runnable = is_runnable(node.op_type, node.domain) or (node.domain, node.op_type) in functions
        if runnable and available.issuperset(filter(None, node.input)):
            part.graph.node.append(node)
            available.update(filter(None, node.output))
    return part


def use_short_domain(proto: onnx.ModelProto) -> bool:
    """Rename the domain "ai.onnx" to "", its other name, in place.

    Returns:
        Whether it was used.

    Raises:
        ModelError: Both are imported, in different versions.
    """
    used = False
    for opsets, nodes in [
        (proto.opset_import, proto.graph.node),
        *((function.opset_import, function.node) for function in proto.functions),
    ]:
        long_names = [entry for entry in opsets if entry.domain == ONNX_DOMAINS[1]]
        versions = {entry.version for entry in opsets if entry.domain in ONNX_DOMAINS}
        if len(versions) > 1:
            raise ModelError(f"it imports two versions of ONNX's operators: {', '.join(map(str, sorted(versions)))}")
        used |= bool(long_names)
        for entry in long_names:
            if any(other.domain == "" for other in opsets):
                opsets.remove(entry)
            else:
                entry.domain = ""
        for node in all_nodes(nodes):
            if node.domain == ONNX_DOMAINS[1]:
                node.domain, used = "", True
    return used


def needs_lenient_check(proto: onnx.ModelProto) -> bool:
    """Whether ONNX's checker refuses what runtimes load: plugins in the default domain, inputs without a shape."""
    return any(_is_plugin(node) for node in all_nodes(proto.graph.node)) or any(map(_is_shapeless, _ends(proto)))


def for_lenient_check(proto: onnx.ModelProto) -> None:
    """Make ONNX's checker accept what runtimes load, in place; the result is for the checker only."""
    for value in filter(_is_shapeless, _ends(proto)):
        value.type.tensor_type.shape.SetInParent()
    proto.opset_import.append(helper.make_opsetid(_PLUGIN_DOMAIN, 1))
    for node in filter(_is_plugin, all_nodes(proto.graph.node)):
        node.domain = _PLUGIN_DOMAIN


def convert_version(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Run ONNX's converter, which refuses plugins in the default domain; `proto` may be changed.

    Raises:
        RuntimeError, ValueError: It fails.
    """
    plugins = [node for node in proto.graph.node if _is_plugin(node)]
    if not plugins:
        return version_converter.convert_version(proto, opset)
    for node in plugins:
        node.domain = _PLUGIN_DOMAIN
    proto.opset_import.append(helper.make_opsetid(_PLUGIN_DOMAIN, 1))
    converted = version_converter.convert_version(proto, opset)
    for node in converted.graph.node:
        if node.domain == _PLUGIN_DOMAIN:
            node.domain = ""
    for entry in [entry for entry in converted.opset_import if entry.domain == _PLUGIN_DOMAIN]:
        converted.opset_import.remove(entry)
    return converted


def _is_plugin(node: onnx.NodeProto) -> bool:
    return node.domain in ONNX_DOMAINS and is_custom(node.op_type, "")


def _ends(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*proto.graph.input, *proto.graph.output]


def _is_shapeless(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
