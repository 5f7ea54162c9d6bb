"""Bias correction: subtract the mean error of each output channel of an INT8 layer through its bias."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.constants import constant_value, is_constant
from trt_ptq.analysis.dataflow import keep_name, name_of
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.qdq.float_names import CORRECTED
from trt_ptq.qdq.insert import QdqModel, remove_unused
from trt_ptq.types import Array

_BIAS = 2  # index of the input


def correct_bias(qdq: QdqModel, shifts: Mapping[str, Array]) -> tuple[QdqModel, int]:
    """Add corrections to the biases of the layers that run in INT8.

    A layer without a bias gets one: for a MatMul it is the constant of the Add behind it, or a new Add, which TensorRT
    fuses with the MatMul. A bias that is computed in the graph is not corrected.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.

    Args:
        qdq: the Q/DQ model, changed in place; with float32 activations, so before `convert_to_float16`.
        shifts: corrections [channels] by layer, from `measure_bias_error`.

    Returns:
        The model, and how many layers were corrected.
    """
    graph = qdq.model.graph
    int8_nodes = {node.output for node in qdq.nodes if node.is_int8}
    corrector = _Corrector(graph, qdq.model.opset_imports[""])
    corrected = 0
    for node in list(graph):
        shift = shifts.get(name_of(node.outputs[0])) if name_of(node.outputs[0]) in int8_nodes else None
        if shift is not None:
            corrected += corrector.matmul(node, shift) if node.op_type == "MatMul" else corrector.bias(node, shift)
    graph.sort()
    return qdq, corrected


class _Corrector:
    """Changes biases, with names that are new to the graph."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._editor = GraphEditor(graph)

    def bias(self, node: ir.Node, shift: Array) -> bool:
        """Correct the bias of a Conv or ConvTranspose, or the C of a Gemm, which counts `beta` times."""
        old = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
        beta = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
        if old is not None and beta != 0 and not is_constant(old):
            return False
        if old is None or beta == 0:
            node.attributes.pop("beta", None)
            new = shift
        else:
            new = self._constant(old) + shift / np.float32(beta)
        if len(node.inputs) == _BIAS:
            node = _with_another_input(self._graph, node)
        self._replace(node, _BIAS, new, f"{name_of(node.outputs[0])}.bias")
        return True

    def matmul(self, node: ir.Node, shift: Array) -> bool:
        """Correct the constant that is added to the result of a MatMul, or add one."""
        result = node.outputs[0]
        uses = tuple(result.uses())
        if len(uses) == 1 and not result.is_graph_output() and uses[0].node.op_type == "Add":
            add, index = uses[0].node, 1 - uses[0].idx
            summand = add.inputs[index]
            if add.graph is self._graph and summand is not None and is_constant(summand):
                self._replace(add, index, self._constant(summand) + shift, f"{summand.name}{CORRECTED}")
                return True
        self._append_add(result, shift)
        return True

    def _constant(self, value: ir.Value) -> Array:
        return constant_value(value, self._opset)

    def _replace(self, node: ir.Node, index: int, array: Array, name: str) -> None:
        old = node.inputs[index]
        node.replace_input_with(index, self._editor.constant(name, ir.tensor(array)))
        if old is not None:
            remove_unused(self._graph, old)

    def _append_add(self, result: ir.Value, shift: Array) -> None:
        """Make all readers of `result` read its sum with `shift`; an output of the model keeps its name."""
        name = str(result.name)
        total = ir.val(self._editor.unique_name(f"{name}{CORRECTED}"), dtype=result.dtype, shape=result.shape)
        result.replace_all_uses_with(total, replace_graph_outputs=True)
        if total.is_graph_output():
            if (producer := result.producer()) is not None:
                keep_name(producer)
            result.name, total.name = total.name, name
        bias = self._editor.constant(f"{name}.bias", ir.tensor(shift))
        self._graph.append(ir.node("Add", [result, bias], outputs=[total], name=total.name))


def _with_another_input(graph: ir.Graph, node: ir.Node) -> ir.Node:
    """Replace `node` by one with another input, still empty."""
    old = node.outputs[0]
    output = ir.val(str(old.name), dtype=old.dtype, shape=old.shape)
    longer = ir.node(node.op_type, [*node.inputs, None], node.attributes, outputs=[output], name=node.name)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [longer], [old], [output])
    return longer
