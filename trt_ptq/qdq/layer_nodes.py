"""Which INT8 nodes a builder's layer stands for, by the name that it has in messages.

TensorRT joins the names of fused nodes: "w + w_QuantizeLinear + /conv/Conv + PWN(PWN(/act/Sigmoid), /act/Mul)". A layer
of its compiler Myelin names the first and the last node: "{ForeignNode[/a/MatMul.../b/Softmax]}". Its ONNX parser calls
a node without a name "node_of_" and its first output, and copies of a node end in "_clone_" and a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.qdq.factored import RAW
from trt_ptq.qdq.insert import QdqModel

_BETWEEN_NAMES = re.compile(r" \+ |, |\.\.\.|PWN\(|\{ForeignNode\[|\]\}|\[Constant\]|\[profile \d+\]|\)|\s")
_COPY = re.compile(r"_clone_\d+$")
_MYELIN = "{ForeignNode["
_STAND_BEHIND = {"Cast", "Mul", "Add"}
_LEADS_TO_INT8 = {"QuantizeLinear", "DequantizeLinear", "Cast"}


def int8_nodes_of_layer(layer: str, model: QdqModel) -> tuple[str, ...]:
    """Find the INT8 nodes that a layer of the builder computes.

    These are the weighted nodes that its name holds, or all nodes if none of them has weights; of a layer that only
    quantizes or dequantizes, the nodes that read the result; of a layer of Myelin, all between its first and its last.

    Args:
        layer: the name of the layer in the builder's message.
        model: the Q/DQ model that was to be built.

    Returns:
        The nodes by their first output, in graph order; empty if the name holds no node of the model, or none in INT8.
    """
    order = list(model.model.graph)
    known = {name: index for index, node in reversed(list(enumerate(order))) for name in _names(node)}
    found = sorted({known[name] for name in _parts(layer) if name in known})
    if layer.startswith(_MYELIN) and len(found) > 1:
        found = list(range(found[0], found[-1] + 1))
    int8 = _int8_nodes(model)
    nodes = [order[index] for index in found]
    outputs = [int8[node] for node in nodes if node in int8] or _readers(nodes, int8)
    weighted = {read.node_output for read in model.plan.inputs if read.axis is not None}
    chosen = [output for output in outputs if output in weighted] or outputs
    return tuple(dict.fromkeys(output for output in int8.values() if output in chosen))


def _int8_nodes(model: QdqModel) -> dict[ir.Node, str]:
    """The INT8 nodes of the model, and what the plan calls them.

    A Cast to the type of an output, or the Mul and Add of the factored form, may have taken over the name of the
    output; they count as the node that they stand behind. Where the ratios of the factored form are in the weights of
    the next convolutions, the output itself is renamed.
    """
    producers = {name_of(value): node for node in model.model.graph for value in node.outputs}
    found: dict[ir.Node, str] = {}
    for decision in model.nodes:
        behind, node = [], producers.get(decision.output) or producers.get(f"{decision.output}{RAW}")
        while node is not None and node.op_type != decision.op_type and node.op_type in _STAND_BEHIND:
            behind.append(node)
            source = node.inputs[0]
            node = None if source is None else source.producer()
        if decision.is_int8 and node is not None and node.op_type == decision.op_type:
            found |= dict.fromkeys((node, *behind), decision.output)
    return found


def _names(node: ir.Node) -> list[str]:
    outputs = [f"node_of_{name_of(value)}" for value in node.outputs]
    return [node.name, *outputs] if node.name else outputs


def _parts(layer: str) -> Iterable[str]:
    """The names of nodes in the name of a layer, as far as they can be told apart."""
    for part in (layer, *_BETWEEN_NAMES.split(layer)):
        yield part
        yield _COPY.sub("", part)


def _readers(nodes: Iterable[ir.Node], int8: Mapping[ir.Node, str]) -> list[str]:
    """The INT8 nodes that read what `nodes` quantize or dequantize."""
    found, pending = [], [node for node in nodes if node.op_type in _LEADS_TO_INT8]
    while pending:
        readers = [use.node for value in pending.pop().outputs for use in value.uses()]
        found += [int8[reader] for reader in readers if reader in int8]
        pending += [reader for reader in readers if reader.op_type in _LEADS_TO_INT8]
    return found
