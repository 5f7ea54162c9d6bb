"""SmoothQuant: move the scale of single channels from a tensor into the weights that read it.

A normalization ends with a multiplication of each channel by a constant, a linear layer with one by a column of its
weight. Dividing channel j there by s_j, and multiplying row j of the weights that read it by s_j, changes what is
quantized but not what is computed. Other readers of the tensor (the residual Add of BERT, which comes after its
normalization) read it multiplied by s again.

The output of attention has no such constant: the values come from the cache of a language model, whose content must not
change. There a Mul by 1 / s is inserted, which builders fuse with the quantization behind it.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022,
equations 3 and 4; between linear layers: Lin et al., "AWQ: Activation-aware Weight Quantization", 2023.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.analysis.dataflow import activations, name_of
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.qdq.attention import is_attention_output
from trt_ptq.qdq.plan import plan_quantization
from trt_ptq.transforms.channel_sources import ChannelConstant, channel_constants
from trt_ptq.transforms.linear_layers import Linear, linear_of
from trt_ptq.transforms.result import TransformSite
from trt_ptq.transforms.scaling import divide, multiplied, names_up_to

_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Pair:
    """A tensor and the weights that read it.

    Attributes:
        tensor: the tensor.
        channels: size of its last axis.
        sources: the constants that scale and shift its channels; empty where a Mul has to be inserted.
        linears: its readers whose weights can be scaled.
        quantized: those of them that run in INT8.
    """

    tensor: ir.Value
    channels: int
    sources: tuple[ChannelConstant, ...]
    linears: tuple[Linear, ...]
    quantized: tuple[Linear, ...]

    def scaled_tensors(self) -> set[str]:
        """The tensors that are scaled along with the constants; none where a Mul is inserted."""
        between = (names_up_to(source.node.outputs[0], self.tensor) for source in self.sources)
        return set().union(*between)


def find_pairs(graph: ir.Graph) -> tuple[list[Pair], list[TransformSite]]:
    """The pairs of the main graph in its order, and the tensors that INT8 weights read but that cannot be smoothed."""
    quantized = {
        node.output for node in plan_quantization(graph).nodes if node.is_int8 and node.op_type in ("MatMul", "Gemm")
    }
    data = activations(graph)
    pairs, skipped = [], []
    for node in graph:
        tensor = node.outputs[0]
        sources = channel_constants(tensor) if name_of(tensor) in data else ()
        readers = [use.node for use in tensor.uses() if use.idx == 0 and name_of(use.node.outputs[0]) in quantized]
        if not readers or not (sources or is_attention_output(tensor)):
            continue
        try:
            pairs.append(_pair(tensor, sources, readers))
        except _UnfitError as unfit:
            skipped.append(TransformSite(name_of(tensor), str(unfit)))
    return pairs, skipped


class _UnfitError(Exception):
    """Why a tensor cannot be smoothed."""


def _pair(tensor: ir.Value, sources: tuple[ChannelConstant, ...], readers: list[ir.Node]) -> Pair:
    if sources and tensor.is_graph_output():
        raise _UnfitError("it is an output of the model")
    channels = _channels(sources) if sources else _num_input_channels(readers)
    candidates = [use.node for use in tensor.uses() if use.idx == 0]
    linears = [linear for linear in map(linear_of, dict.fromkeys(candidates)) if linear and linear.channels == channels]
    linears = [replace(linear, tied=_is_tied(linear)) for linear in linears]
    while shared := [
        item
        for item in linears
        if not item.tied and not _read_only_by(item.weight, {linear.node for linear in linears})
    ]:
        linears = [linear for linear in linears if linear not in shared]
    axes = {linear.weight: linear.axis for linear in linears}
    for linear in linears:
        if axes[linear.weight] != linear.axis:
            raise _UnfitError(f"the weight {name_of(linear.weight)!r} is read both with and without a transposition")
    scalable = {linear.node for linear in linears}
    for node in readers:
        if node not in scalable:
            raise _UnfitError(f"the weight of {name_of(node.outputs[0])!r} cannot be scaled: {_why_not(node)}")
    return Pair(
        tensor, channels, sources, tuple(linears), tuple(linear for linear in linears if linear.node in readers)
    )


def _num_input_channels(readers: list[ir.Node]) -> int:
    """The number of channels, from the weights that read the tensor: its own shape may be computed."""
    linears = [linear for linear in map(linear_of, readers) if linear]
    if not linears:
        raise _UnfitError("no weight that reads it is an initializer")
    return linears[0].channels


def _channels(sources: tuple[ChannelConstant, ...]) -> int:
    """The number of channels, which all the constants have in common."""
    for source in sources:
        if source.tensor is None:
            raise _UnfitError(f"{str(source)!r}, which scales or shifts it, is not a float32 constant")
    counts = {source.channels for source in sources}
    if len(counts) != 1 or 1 in counts:
        raise _UnfitError("it is not scaled and shifted per channel")
    return counts.pop()


def _is_tied(linear: Linear) -> bool:
    """Whether embeddings read the weight, and beside them only `linear`, possibly through a Transpose."""
    weight, operand = linear.weight, linear.operand
    reader, _ = linear.weight_reader
    others = [use.node for use in weight.uses() if use.node.op_type != "Gather"]
    if weight.is_graph_output() or others != [reader] or len(weight.uses()) == 1:
        return False
    return operand is weight or len(operand.uses()) == 1


def _read_only_by(weight: ir.Value, nodes: set[ir.Node]) -> bool:
    """Whether only the second inputs of `nodes` read `weight`."""
    if weight.is_graph_output():
        return False
    for use in weight.uses():
        if use.node in nodes and use.idx == 1:
            continue
        if use.node.op_type != "Transpose" or not _read_only_by(use.node.outputs[0], nodes):
            return False
    return True


def _why_not(node: ir.Node) -> str:
    linear = linear_of(node)
    if linear is None:
        return "it is not an initializer"
    return f"{name_of(linear.weight)!r} has other readers, or a different number of rows"


def scale_pairs(graph: ir.Graph, pairs: Iterable[tuple[Pair, npt.NDArray[np.float32]]]) -> None:
    """Divide the channels of each pair's tensor by the scales given with it, and compensate in all its readers.

    Weights are scaled when the model is written.
    """
    editor = GraphEditor(graph)
    for pair, scales in pairs:
        for source in pair.sources:
            divide(editor, source.node, source.index, scales, source.axis)
        untied = [_untied(editor, linear) if linear.tied else linear for linear in pair.linears]
        for weight, axis in {linear.weight: linear.axis for linear in untied}.items():
            assert weight.const_value is not None
            rows = scales if axis == 1 else scales[:, None]
            weight.const_value = multiplied(weight.const_value, rows)
        nodes = {linear.node for linear in pair.linears}
        if not pair.sources:
            smoothed = _multiplied_behind(graph, editor, pair.tensor, np.reciprocal(scales), "smoothed")
            for node in nodes:
                node.replace_input_with(0, smoothed)
            continue
        others = [use for use in pair.tensor.uses() if use.node not in nodes or use.idx != 0]
        if others:
            restored = _multiplied_behind(graph, editor, pair.tensor, scales, "restored")
            for use in others:
                use.node.replace_input_with(use.idx, restored)


def _untied(editor: GraphEditor, linear: Linear) -> Linear:
    """`linear` with a copy of its weight, which it alone reads."""
    assert linear.weight.const_value is not None
    return linear.with_own_weight(editor, multiplied(linear.weight.const_value, np.ones(1, np.float32)))


def _multiplied_behind(
    graph: ir.Graph, editor: GraphEditor, tensor: ir.Value, factors: npt.NDArray[np.float32], suffix: str
) -> ir.Value:
    """`tensor` multiplied by `factors`, by a Mul behind it."""
    node = tensor.producer()
    assert node is not None
    name = editor.unique_name(f"{tensor.name}.{suffix}")
    output = ir.Value(name=name, type=ir.TensorType(_FLOAT), shape=tensor.shape)
    inputs = [tensor, editor.constant(f"{tensor.name}.smoothing", ir.tensor(factors.astype(np.float32)))]
    graph.insert_after(node, ir.Node("", "Mul", inputs, outputs=[output], name=name))
    return output
