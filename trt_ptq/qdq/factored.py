"""The factored form of convolutions for TensorRT-RTX: one weight scale, and the channels' ratios in a Mul behind it.

TensorRT-RTX runs a convolution with per-channel weight scales in INT8, but writes float32. With one scale it writes
float16, which is half the traffic. So the int8 weights stay as they are, each channel normalized by its own amax; one
scale s dequantizes them, and the Mul applies scale[c] / s to the result, before the bias:

    y[c] = scale[c] * conv(x, q)[c] + b[c]  =  (scale[c] / s) * (s * conv(x, q)[c]) + b[c]

Where all readers of y, possibly behind an activation f with f(r y) = r f(y) for r > 0, are float convolutions, the
ratios are multiplied into their weights instead, which saves the kernel of the Mul.

TensorRT 10 and 11 fuse per-channel scales into the convolution, so this form is for TensorRT-RTX alone. See
docs/tensorrt-rtx.md for the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.constants import constant_value, is_constant
from trt_ptq.analysis.dataflow import keep_name, name_of
from trt_ptq.calibrators.table.calibration_table import INT8_MAX
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.lazy_tensor import lazy_map
from trt_ptq.qdq.insert import QdqModel, remove_unused
from trt_ptq.types import Array

RAW, SCALED = ".raw", ".scaled"  # suffixes: the convolution before its ratios; after them, before the bias
_FLOAT16_LIMIT = float(np.finfo(np.float16).max) / 4  # as `keep_fp32` wants it
_MAX_RATIO = 2.0**13
_MIN_EXPONENT, _MAX_EXPONENT = -14, 15  # of the common scale: normal numbers in float16
_HOMOGENEOUS_OPS = {"Relu", "LeakyRelu", "Identity", "MaxPool"}  # f(r x) = r f(x) for r > 0


@dataclass(frozen=True)
class PerChannel:
    """A convolution that keeps its per-channel scales.

    Attributes:
        output: Its first output.
        reason: Why.
    """

    output: str
    reason: str


@dataclass(frozen=True)
class FactoredModel:
    """What `factor_weights` did.

    Attributes:
        factored: The convolutions with a Mul behind them, by their first output in the float model.
        folded: Those whose ratios are in the weights of the convolutions that follow.
        per_channel: Those that keep their per-channel scales, and why.
        amax: Largest magnitudes of the tensors that are new or changed, for `convert_to_float16`.
    """

    factored: tuple[str, ...]
    folded: tuple[str, ...]
    per_channel: tuple[PerChannel, ...]
    amax: Mapping[str, float] = field(default_factory=dict)


def factor_weights(qdq: QdqModel, amax: Mapping[str, float] | None) -> FactoredModel:
    """Give the INT8 convolutions of a Q/DQ model the factored form, in place.

    The common scale is a power of two, so that float16 holds it exactly, and such that the result before the ratios
    stays within the range of float16.

    Args:
        qdq: A Q/DQ model with float32 activations, so before `convert_to_float16`.
        amax: The largest magnitude of the convolutions' outputs; None if they were not measured.

    Returns:
        What was done.
    """
    graph = qdq.model.graph
    factorizer = _Factorizer(graph, qdq.model.opset_imports[""], amax)
    for node in list(graph):
        if node.op_type == "Conv" and node.domain == "" and _has_int8_inputs(node):
            factorizer.factor(node)
    graph.sort()
    return factorizer.result()


def _has_int8_inputs(node: ir.Node) -> bool:
    """Whether a node reads a dequantized activation, and a weight with per-channel scales along axis 0."""
    data, weight = (value.producer() if value is not None else None for value in node.inputs[:2])
    if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
        return False
    scale = weight.inputs[1]
    return scale is not None and scale.const_value is not None and scale.const_value.shape.rank() == 1


class _Factorizer:
    """Rewrites one convolution at a time."""

    def __init__(self, graph: ir.Graph, opset: int, amax: Mapping[str, float] | None) -> None:
        self._graph = graph
        self._opset = opset
        self._measured = amax
        self._editor = GraphEditor(graph)
        self._factored: list[str] = []
        self._folded: list[str] = []
        self._per_channel: list[PerChannel] = []
        self._amax: dict[str, float] = {}
        self._renamed: set[ir.Value] = set()

    def result(self) -> FactoredModel:
        return FactoredModel(tuple(self._factored), tuple(self._folded), tuple(self._per_channel), self._amax)

    def factor(self, node: ir.Node) -> None:
        name = name_of(node.outputs[0])
        keep_name(node)
        weight = node.inputs[1]
        assert weight is not None
        dequantize = weight.producer()
        assert dequantize is not None and dequantize.inputs[1] is not None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if len(weight.uses()) > 1:
            self._keep(name, "its weight has several readers")
            return
        if bias is not None and not is_constant(bias):
            self._keep(name, "its bias is computed in the graph")
            return
        scales = constant_value(dequantize.inputs[1], self._opset).astype(np.float64)
        offset = np.zeros(len(scales)) if bias is None else constant_value(bias, self._opset).astype(np.float64)
        largest = None if self._measured is None else self._measured.get(name)
        bounds = np.full(len(scales), _reach(node, dequantize))
        if largest is not None:
            bounds = np.minimum(bounds, (largest + np.abs(offset)) / scales)
        exponent = _common_exponent(scales, float(bounds.max()), largest)
        if exponent is None:
            reach = "" if largest is None else f", and its output {largest:.4g}"
            spread = f"its weight scales reach from {scales.min():.4g} to {scales.max():.4g}"
            self._keep(name, f"{spread}{reach}: with one scale it would leave the range of float16")
            return
        ratios = scales / 2.0**exponent
        self._set_scale(dequantize, 2.0**exponent)
        bound = None if largest is None else float((bounds * 2.0**exponent).max())
        readers = _float_convolutions(node.outputs[0])
        if readers:
            self._fold(node, ratios, None if bias is None else offset, readers, bound)
            self._folded.append(name)
        else:
            self._append(node, ratios, None if bias is None else offset, bound)
            self._factored.append(name)
        if bias is not None:
            remove_unused(self._graph, bias)

    def _keep(self, name: str, reason: str) -> None:
        self._per_channel.append(PerChannel(name, reason))

    def _set_scale(self, dequantize: ir.Node, scale: float) -> None:
        """Replace the per-channel scales and zero points by one."""
        for index, array in ((1, np.array(scale, np.float32)), (2, np.array(0, np.int8))):
            old = dequantize.inputs[index]
            assert old is not None
            dequantize.replace_input_with(index, self._editor.constant(f"{old.name}.common", ir.tensor(array)))
            remove_unused(self._graph, old)
        dequantize.attributes.pop("axis", None)

    def _append(self, node: ir.Node, ratios: Array, offset: Array | None, bound: float | None) -> None:
        """Apply the ratios and the bias behind the convolution; the last result takes over the name."""
        result = node.outputs[0]
        name, shape = name_of(result), (1, -1) + (1,) * (_weight_rank(node) - 2)
        last = ir.val(name, dtype=result.dtype, shape=result.shape)
        result.replace_all_uses_with(last, replace_graph_outputs=True)
        self._rename(result, f"{name}{RAW}", bound)
        scaled = last
        if offset is not None:
            scaled = ir.val(self._editor.unique_name(f"{name}{SCALED}"), dtype=result.dtype, shape=result.shape)
            if bound is not None and self._measured is not None:
                self._amax[name_of(scaled)] = self._measured[name] + float(np.abs(offset).max(initial=0))
            node.replace_input_with(2, None)
        ratio = self._editor.constant(f"{name}.ratio", ir.tensor(ratios.astype(np.float32).reshape(shape)))
        self._graph.append(ir.node("Mul", [result, ratio], outputs=[scaled], name=scaled.name))
        if offset is not None:
            constant = self._editor.constant(f"{name}.bias", ir.tensor(offset.astype(np.float32).reshape(shape)))
            self._graph.append(ir.node("Add", [scaled, constant], outputs=[last], name=last.name))

    def _fold(
        self, node: ir.Node, ratios: Array, offset: Array | None, readers: list[ir.Node], bound: float | None
    ) -> None:
        """Multiply the ratios into the weights of `readers`, and divide the bias by them."""
        for reader in readers:
            weight = reader.inputs[1]
            assert weight is not None and weight.const_value is not None and weight.const_value.dtype is not None
            depthwise = reader.attributes.get_int("group", 1) > 1
            shape = (-1, 1) if depthwise else (1, -1)
            factors = ratios.astype(np.float32).reshape(shape + (1,) * (_weight_rank(reader) - 2))
            name = self._editor.unique_name(f"{weight.name}.folded")
            product = lazy_map(weight.const_value, partial(np.multiply, factors), weight.const_value.dtype, name)
            reader.replace_input_with(1, self._editor.constant(name, product))
            remove_unused(self._graph, weight)
            value = reader.inputs[0]
            while value is not None and value is not node.outputs[0]:  # what stands between has other values now
                self._rename(value, f"{value.name}{RAW}", bound)
                producer = value.producer()
                value = None if producer is None else producer.inputs[0]
        self._rename(node.outputs[0], f"{node.outputs[0].name}{RAW}", bound)
        if offset is not None:
            bias = self._editor.constant(
                f"{node.outputs[0].name}.bias", ir.tensor((offset / ratios).astype(np.float32))
            )
            node.replace_input_with(2, bias)

    def _rename(self, value: ir.Value, name: str, bound: float | None) -> None:
        if value not in self._renamed:
            value.name = self._editor.unique_name(name)
            self._renamed.add(value)
        if bound is not None:
            self._amax[name_of(value)] = bound


def _reach(node: ir.Node, dequantize: ir.Node) -> float:
    """The largest magnitude of the convolution if its int8 weights had the scale 1."""
    data, weight = node.inputs[0], dequantize.inputs[0]
    assert data is not None and weight is not None and weight.shape is not None
    source = data.producer()
    scale = source.inputs[1].const_value if source is not None and source.inputs[1] is not None else None
    step = math.inf if scale is None else float(scale.numpy())
    return 128 * step * INT8_MAX * math.prod(weight.shape.numpy()[1:])


def _common_exponent(scales: Array, bound: float, largest: float | None) -> int | None:
    """The exponent of the common scale, near the median of `scales`; None if float16 is too narrow.

    Args:
        scales: the scales of the channels.
        bound: the largest magnitude of the convolution with the common scale 1.
        largest: the largest magnitude of its output; None if unknown.
    """
    limit, max_ratio = _FLOAT16_LIMIT, _MAX_RATIO
    if largest is not None:  # float16's smallest step, 2**-24, of a ratio or of a result must not matter in the output
        limit, max_ratio = min(limit, largest * 2.0**16), min(max_ratio, largest * 2.0**14)
    if not 0 < bound < math.inf or max_ratio <= 0:
        return None
    above = min(math.floor(math.log2(limit / bound)), _MAX_EXPONENT)
    below = max(math.ceil(math.log2(float(scales.max()) / max_ratio)), _MIN_EXPONENT)
    middle = round(math.log2(float(np.median(scales))))
    return None if below > above else min(max(middle, below), above)


def _float_convolutions(value: ir.Value) -> list[ir.Node] | None:
    """The readers of `value`, behind homogeneous activations, if all of them are float convolutions; else None."""
    if value.is_graph_output() or not value.uses():
        return None
    readers: list[ir.Node] = []
    for node, index in value.uses():
        if node.domain != "" or index != 0:
            return None
        if node.op_type in _HOMOGENEOUS_OPS and len(node.outputs) == 1:
            further = _float_convolutions(node.outputs[0])
            if further is None:
                return None
            readers += further
        elif node.op_type == "Conv" and _has_own_float_weight(node):
            readers.append(node)
        else:
            return None
    return readers


def _has_own_float_weight(node: ir.Node) -> bool:
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or weight.dtype != ir.DataType.FLOAT or len(weight.uses()) > 1:
        return False
    return node.attributes.get_int("group", 1) in (1, weight.const_value.shape.numpy()[0])


def _weight_rank(node: ir.Node) -> int:
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    return len(weight.shape)
