"""Outlier channels at the inputs of linear layers: how large they are, and at which token.

A few channels of a language model are tens to thousands of times larger than the others, many of them at the first
token alone (attention sinks, "massive activations"). They set the range that all channels of the tensor share.

Source: Sun et al., "Massive Activations in Large Language Models", 2024; Xiao et al., "SmoothQuant", 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from trt_ptq.analysis.constants import is_constant
from trt_ptq.analysis.dataflow import activations, name_of
from trt_ptq.calibration.measurements.measuring_graph import MeasuringGraph
from trt_ptq.data.subset import Head
from trt_ptq.language_models.decoder import num_past_tokens
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import run_part
from trt_ptq.types import Array, BatchSource

MIN_RATIO = 20.0  # to the median channel, to count as an outlier
_PER_TENSOR = 3
_SAMPLES = 8


@dataclass(frozen=True)
class OutlierChannel:
    """A channel that is much larger than the others of its tensor.

    Attributes:
        tensor: the tensor, an input of linear layers.
        layers: these layers, by their first output.
        channel: index of the channel.
        amax: its largest magnitude.
        ratio: `amax` relative to the median of all channels' largest magnitudes.
        position: the token position of the largest magnitude, from the start of the text.
        ratio_after: the largest ratio of any channel of the tensor in the transformed model, whose channels may be
            others: rotated, or split; None without one.
    """

    tensor: str
    layers: tuple[str, ...]
    channel: int
    amax: float
    ratio: float
    position: int
    ratio_after: float | None = None


@dataclass(frozen=True)
class _Peaks:
    """The largest magnitude of each channel of a tensor, and the token position of it; both [channels]."""

    amax: Array
    positions: Array

    @property
    def ratios(self) -> Array:
        median = float(np.median(self.amax))
        return self.amax / median if median else np.zeros_like(self.amax)


def find_outliers(model: Model, source: BatchSource, transformed: Model | None = None) -> tuple[OutlierChannel, ...]:
    """Find up to three outlier channels of each input of linear layers, on up to 8 samples.

    Args:
        model: the float model.
        source: the calibration data.
        transformed: the model after techniques changed it, if they did; its tensors have the same names.

    Returns:
        The outliers, the largest ratio first.

    Raises:
        DataError: there are no batches, or the model fails on one.
    """
    layers = _linear_inputs(model)
    before = _measure(model, source, list(layers))
    found = [
        (name, int(channel), peaks)
        for name, peaks in before.items()
        for channel in np.argsort(-peaks.ratios)[:_PER_TENSOR]
        if peaks.ratios[channel] >= MIN_RATIO
    ]
    names = list(dict.fromkeys(name for name, _, _ in found))
    after = _measure(transformed, source, names) if transformed is not None and names else {}
    outliers = [
        OutlierChannel(
            tensor=name,
            layers=layers[name],
            channel=channel,
            amax=float(peaks.amax[channel]),
            ratio=float(peaks.ratios[channel]),
            position=int(peaks.positions[channel]),
            ratio_after=float(after[name].ratios[channel]) if name in after else None,
        )
        for name, channel, peaks in found
    ]
    return tuple(sorted(outliers, key=lambda outlier: outlier.ratio, reverse=True))


def _linear_inputs(model: Model) -> dict[str, tuple[str, ...]]:
    """The layers by the tensor [..., tokens, channels] that they read, in graph order."""
    graph = model.to_ir().graph
    floats = set(activations(graph))
    layers: dict[str, tuple[str, ...]] = {}
    for node in graph:
        data, weight = (*node.inputs, None, None)[:2]
        if node.op_type != "MatMul" or node.domain != "" or data is None or weight is None or not is_constant(weight):
            continue
        if name_of(data) in floats and data.shape is not None and len(data.shape) > 1:
            layers[name_of(data)] = (*layers.get(name_of(data), ()), name_of(node.outputs[0]))
    return layers


def _measure(model: Model, source: BatchSource, tensors: Sequence[str]) -> Mapping[str, _Peaks]:
    if not tensors:
        return {}
    session = _session(model, tensors)
    peaks: dict[str, _Peaks] = {}
    for batch in Head(source, _SAMPLES):
        results = iter(run_part(session, batch))
        for name in tensors:
            amax, positions = next(results), next(results) + num_past_tokens(batch.feeds)
            peaks[name] = _larger(peaks.get(name), _Peaks(amax, positions))
    return peaks


def _larger(first: _Peaks | None, second: _Peaks) -> _Peaks:
    if first is None:
        return second
    is_larger = second.amax > first.amax
    return _Peaks(np.where(is_larger, second.amax, first.amax), np.where(is_larger, second.positions, first.positions))


def _session(model: Model, tensors: Sequence[str]) -> ort.InferenceSession:
    """Computes, for each tensor, the largest magnitude of each channel and its token position."""
    graph = MeasuringGraph(model)
    minus_one, token_axis, channel_axis = (graph.constant([number]) for number in (-1, -2, -1))
    for name in tensors:
        shape = graph.node("Shape", graph.tensor(name))
        channels, length = (graph.node("Gather", shape, axis) for axis in (channel_axis, token_axis))
        rows = graph.node("Reshape", graph.tensor(name), graph.node("Concat", minus_one, channels, axis=0))
        magnitudes = graph.node("Abs", rows)
        graph.add_output(graph.max_over(magnitudes, 0))
        row = graph.node("ArgMax", magnitudes, axis=0, keepdims=0)
        graph.add_output(graph.node("Mod", row, length), ir.DataType.INT64)
    return graph.session()
