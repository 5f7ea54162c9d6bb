"""Names nodes and weights of an exported model after its torch modules, for patterns such as *down_proj*."""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

_SCOPES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
_LINEAR = "torch.nn.modules.linear.Linear"
_WRAPPER = "decoder."


def name_after_modules(model: ir.Model) -> None:
    """Rename what belongs to a module, in place; inputs and outputs of the graph keep their names.

    A node is called "model.layers.0.self_attn/MatMul_2"; the output of a linear layer like the module, such as
    "model.layers.0.mlp.down_proj", and its weight "model.layers.0.mlp.down_proj.weight".
    """
    graph = model.graph
    values = _names_of_values(graph)
    numbers: Counter[str] = Counter()
    for initializer in list(graph.initializers.values()):
        _rename(graph, initializer, str(initializer.name).removeprefix(_WRAPPER), values)
    for node in graph:
        module = _module_path(node)
        if not module:
            continue
        name = f"{module}/{node.op_type}"
        numbers[name] += 1
        node.name = name if numbers[name] == 1 else f"{name}_{numbers[name] - 1}"
        if _is_linear(node):
            for operand in node.inputs:
                if operand is not None and operand.name in graph.initializers and len(operand.uses()) == 1:
                    part = "bias" if operand.shape is not None and len(operand.shape) == 1 else "weight"
                    _rename(graph, operand, f"{module}.{part}", values)
            if not node.outputs[0].is_graph_output() and not _feeds_own_bias(node):
                _rename(graph, node.outputs[0], module, values)


def _names_of_values(graph: ir.Graph) -> set[str]:
    named = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
    return {str(value.name) for value in named}


def _rename(graph: ir.Graph, value: ir.Value, name: str, taken: set[str]) -> None:
    if name in taken:
        return
    taken.add(name)
    if value.name in graph.initializers:
        del graph.initializers[str(value.name)]
        value.name = name
        graph.initializers[name] = value
    else:
        value.name = name


def _scopes(node: ir.Node, key: str) -> list[str]:
    scopes = ast.literal_eval(node.metadata_props.get(key, "[]"))
    return [str(scope) for scope in scopes]


def _module_path(node: ir.Node) -> str:
    """The path of the module that the node computes a part of; the last scope is the operation itself."""
    scopes = _scopes(node, _SCOPES)
    path = scopes[-2] if len(scopes) > 1 else ""
    return path.removeprefix(_WRAPPER) if path.startswith(_WRAPPER) else ""  # "" for what the wrapper itself computes


def _is_linear(node: ir.Node) -> bool:
    return node.op_type in ("MatMul", "Gemm", "Add") and _LINEAR in _scopes(node, _CLASSES)[-2:-1]


def _feeds_own_bias(node: ir.Node) -> bool:
    """Whether the node is the MatMul of a linear layer whose bias follows as an Add, which is the layer's output."""
    path = _module_path(node)
    return any(_is_linear(user) and _module_path(user) == path for user, _ in node.outputs[0].uses())
