"""Cross-layer equalization: equal channel ranges in the weights of consecutive convolutions.

Where only the second convolution reads the first, possibly through functions with f(s x) = s f(x) for s > 0, output
channel i of the first is divided by s_i, and input channel i of the second is multiplied by it:

    s_i = sqrt(r1_i / r2_i)

where r1_i and r2_i are the largest magnitudes of that channel's weights; both become sqrt(r1_i r2_i). All pairs are
equalized repeatedly until nothing changes, as a convolution can be in two pairs. A BatchNormalization behind the first
convolution counts as part of its weights, and is divided in their place.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, equations 9 to 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.analysis.op_types import POSITIVELY_HOMOGENEOUS_OPS
from trt_ptq.onnx_io.external_data import read_once
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.load import Model
from trt_ptq.transforms.result import TransformResult, TransformSite
from trt_ptq.transforms.scaling import divide, multiplied, names_up_to
from trt_ptq.types import Array

_HOMOGENEOUS_OPS = POSITIVELY_HOMOGENEOUS_OPS | {"PRelu", "MaxPool", "AveragePool", "Identity"}
_MAX_SWEEPS = 100
_CONVERGED = 1e-3  # largest change of log2(s) in the last sweep
_DEAD = 1e-6  # of the largest range: such a channel is nearly constant, and scaling it would make its bias very large
_EVEN = 0.05  # log2(s) below which a pair is left unchanged

Floats = npt.NDArray[np.float64]


class _UnfitError(Exception):
    """Why two convolutions cannot be equalized."""


@dataclass(frozen=True)
class _Layer:
    """A convolution with constant weights.

    Attributes:
        node: the convolution.
        normalization: the BatchNormalization that is its only reader, if there is one.
        groups: its groups.
        ranges: [outputs, inputs of a group] largest magnitude of each kernel, including BatchNormalization and all
            scales so far.
        divided: [outputs] all scales of the outputs so far.
        multiplied: [inputs] all scales of the inputs so far.
    """

    node: ir.Node
    normalization: ir.Node | None
    groups: int
    ranges: Floats
    divided: Floats
    multiplied: Floats

    @property
    def of_outputs(self) -> Floats:
        """Largest magnitude for each output channel."""
        ranges: Floats = self.ranges.max(axis=1)
        return ranges

    @property
    def of_inputs(self) -> Floats:
        """Largest magnitude for each input channel."""
        ranges: Floats = self._grouped.max(axis=1).reshape(-1)
        return ranges

    @property
    def _grouped(self) -> Floats:
        return self.ranges.reshape(self.groups, -1, self.ranges.shape[1])

    def divide_outputs(self, scales: Floats) -> None:
        self.ranges[...] /= scales[:, None]
        self.divided[...] *= scales

    def multiply_inputs(self, scales: Floats) -> None:
        self._grouped[...] *= scales.reshape(self.groups, 1, -1)
        self.multiplied[...] *= scales


@dataclass(frozen=True)
class _Pair:
    """Two convolutions; `second` reads `tensor`, which comes from `first`."""

    tensor: ir.Value
    first: _Layer
    second: _Layer

    def equalize(self) -> float:
        """Make the ranges of both sides equal; returns the largest change of a scale, as log2."""
        outputs, inputs = self.first.of_outputs, self.second.of_inputs
        alive = (outputs > _DEAD * outputs.max()) & (inputs > _DEAD * inputs.max())
        scales = np.ones_like(outputs)
        scales[alive] = np.sqrt(outputs[alive] / inputs[alive])
        self.first.divide_outputs(scales)
        self.second.multiply_inputs(scales)
        return float(np.abs(np.log2(scales)).max())


def equalize(model: Model) -> TransformResult:
    """Equalize consecutive convolutions of `model`; needs no data.

    Pairs are skipped if a function between them is not homogeneous (Clip, HardSwish), if other nodes read a tensor
    between them, or if their weights are shared or computed.

    Raises:
        ModelError: a weights file became shorter.
    """
    result = model.to_ir()
    pairs, skipped = _find_pairs(result.graph)
    for _ in range(_MAX_SWEEPS):
        if max([pair.equalize() for pair in pairs], default=0.0) < _CONVERGED:
            break
    applied, changed = [], set[str]()
    for pair in pairs:
        name = name_of(pair.tensor)
        widest = np.abs(np.log2(pair.first.divided)).max()
        if widest < _EVEN:
            skipped.append(TransformSite(name, "its channels have even ranges already"))
            pair.first.divided[...] = 1
            pair.second.multiplied[...] = 1
        else:
            low, high = pair.first.divided.min(), pair.first.divided.max()
            applied.append(TransformSite(name, f"channels scaled by 1/{high:.3g} to 1/{low:.3g}"))
            changed |= names_up_to(pair.first.node.outputs[0], pair.tensor)
    editor = GraphEditor(result.graph)
    for layer in {layer.node: layer for pair in pairs for layer in (pair.first, pair.second)}.values():
        _write(editor, layer)
    return TransformResult(result, tuple(applied), tuple(skipped), frozenset(changed))


def _find_pairs(graph: ir.Graph) -> tuple[list[_Pair], list[TransformSite]]:
    """The pairs in graph order, and the convolutions that are followed by another one but make no pair with it."""
    layers: dict[ir.Node, _Layer] = {}
    pairs, skipped = [], []
    for node in graph:
        if not _is_convolution(node):
            continue
        try:
            following = _following(node)
            if following is None:
                continue
            second, tensor = following
            for convolution in (node, second):
                if convolution not in layers:
                    layers[convolution] = _layer(convolution)
            if len(layers[node].divided) != len(layers[second].multiplied):
                raise _UnfitError("the weights of both convolutions have different numbers of channels")
            pairs.append(_Pair(tensor, layers[node], layers[second]))
        except _UnfitError as unfit:
            skipped.append(TransformSite(name_of(node.outputs[0]), str(unfit)))
    return pairs, skipped


def _is_convolution(node: ir.Node) -> bool:
    return node.op_type == "Conv" and node.domain == ""


def _following(first: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """The convolution that is the only reader of `first`, and the tensor that it reads; None if there is none.

    Raises:
        _UnfitError: there is one, but the nodes between prevent a pair.
    """
    tensor = first.outputs[0]
    normalization = _normalization(first)
    if normalization is not None:
        tensor = normalization.outputs[0]
    while True:
        uses = tensor.uses()
        next_to_it = any(_is_convolution(use.node) for use in uses)
        if tensor.is_graph_output() or len(uses) != 1:
            if next_to_it:
                raise _UnfitError(f"{name_of(tensor)!r} has other readers, or is an output of the model")
            return None
        (use,) = uses
        if next_to_it:
            return (use.node, tensor) if use.idx == 0 else None
        if use.idx != 0 or use.node.domain != "" or len(use.node.outputs) != 1:
            return None
        if use.node.op_type not in _HOMOGENEOUS_OPS:
            if any(_is_convolution(behind.node) for behind in use.node.outputs[0].uses()):
                raise _UnfitError(f"{use.node.op_type} follows, which does not scale with its input")
            return None
        tensor = use.node.outputs[0]


def _normalization(convolution: ir.Node) -> ir.Node | None:
    """The BatchNormalization that is the only reader of a convolution."""
    tensor = convolution.outputs[0]
    if tensor.is_graph_output() or len(tensor.uses()) != 1:
        return None
    (use,) = tensor.uses()
    node = use.node
    return node if node.op_type == "BatchNormalization" and len(node.outputs) == 1 and use.idx == 0 else None


def _layer(node: ir.Node) -> _Layer:
    normalization = _normalization(node)
    weight = _own_constant(node, 1)
    kernels = read_once(weight, _largest_of_kernels)
    if normalization is not None:
        gamma, variance = (_constant(normalization, index).numpy().astype(np.float64) for index in (1, 4))
        gain = np.abs(gamma) / np.sqrt(variance + normalization.attributes.get_float("epsilon", 1e-5))
        kernels *= gain[:, None]
    if not np.isfinite(kernels).all():
        raise _UnfitError(f"the weights of {name_of(node.outputs[0])!r} are not finite")
    for reader, index in _per_output_inputs(node, normalization):
        _constant(reader, index)
    groups = int(node.attributes.get_int("group", 1))
    return _Layer(node, normalization, groups, kernels, np.ones(len(kernels)), np.ones(kernels.shape[1] * groups))


def _largest_of_kernels(weight: Array) -> Floats:
    largest: Floats = np.abs(weight).max(axis=tuple(range(2, weight.ndim))).astype(np.float64)
    return largest


def _per_output_inputs(node: ir.Node, normalization: ir.Node | None) -> list[tuple[ir.Node, int]]:
    """The inputs (node, index) with one number per output channel, which are divided along with it."""
    if normalization is not None:
        return [(normalization, 1), (normalization, 2)]
    return [(node, 2)] if len(node.inputs) > 2 and node.inputs[2] is not None else []


def _constant(node: ir.Node, index: int) -> ir.TensorProtocol:
    value = node.inputs[index]
    if value is None or not value.is_initializer() or value.const_value is None or value.dtype != ir.DataType.FLOAT:
        raise _UnfitError(f"{name_of(value)!r} is not a float32 constant")
    return value.const_value


def _own_constant(node: ir.Node, index: int) -> ir.TensorProtocol:
    tensor = _constant(node, index)
    value = node.inputs[index]
    assert value is not None
    if len(value.uses()) != 1 or value.is_graph_output():
        raise _UnfitError(f"the weight {name_of(value)!r} is shared")
    return tensor


def _write(editor: GraphEditor, layer: _Layer) -> None:
    """Scale the constants of the layer; weights are scaled when the model is written."""
    weight = layer.node.inputs[1]
    assert weight is not None and weight.const_value is not None
    source = weight.const_value
    inputs = np.repeat(layer.multiplied.reshape(layer.groups, 1, -1), len(layer.divided) // layer.groups, axis=1)
    factors = inputs.reshape(len(layer.divided), -1)
    if layer.normalization is None:
        factors = factors / layer.divided[:, None]
    if (factors != 1).any():
        broadcast = factors.reshape(*factors.shape, *[1] * (len(source.shape) - 2))
        weight.const_value = multiplied(source, broadcast.astype(np.float32))
    if (layer.divided != 1).any():
        for node, index in _per_output_inputs(layer.node, layer.normalization):
            divide(editor, node, index, layer.divided)
