"""Cut a model before TensorRT's plugins, which ONNX Runtime cannot run."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trt_ptq.analysis.dataflow import inner_nodes, name_of
from trt_ptq.onnx_io.domains import is_runnable


def unrunnable_values(graph: ir.Graph) -> set[ir.Value]:
    """The outputs of plugins in the main graph, and everything computed from them."""
    values: set[ir.Value] = set()
    for node in graph:
        operands = {value for reader in (node, *inner_nodes(node)) for value in reader.inputs if value is not None}
        if _is_plugin(node) or not values.isdisjoint(operands):
            values.update(node.outputs)
    return values


def cut_plugins(model: ir.Model) -> bool:
    """Remove the plugins and all nodes that depend on them, in place.

    The tensors that the plugins read become outputs, called `PLUGIN OUTPUT.input INDEX`, before the outputs that
    remain.

    Returns:
        Whether the model has plugins.
    """
    graph = model.graph
    unrunnable = unrunnable_values(graph)
    outputs = []
    for node in filter(_is_plugin, list(graph)):
        for index, value in enumerate(node.inputs):
            if value is not None and value.producer() is not None and value not in unrunnable:
                name = f"{name_of(node.outputs[0])}.input {index}"
                outputs.append(ir.val(name, dtype=value.dtype, shape=value.shape))
                graph.append(ir.node("Identity", [value], outputs=[outputs[-1]], name=name))
    graph.outputs[:] = [*outputs, *(value for value in graph.outputs if value not in unrunnable)]
    if unrunnable:
        RemoveUnusedNodesPass()(model)
    return bool(unrunnable)


def _is_plugin(node: ir.Node) -> bool:
    return not is_runnable(node.op_type, node.domain)
