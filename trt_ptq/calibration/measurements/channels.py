"""The largest magnitude of each channel of a tensor, and a sample of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from trt_ptq.calibration.measurements.measuring_graph import MeasuringGraph, last_first
from trt_ptq.data.subset import Head
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import run_session
from trt_ptq.types import Array, BatchSource

_SAMPLES = 64
_MAX_ROWS = 256
_MAX_BYTES = 2**28  # of all rows together
_SMALLEST_HALF = 1 / 8  # of the rows: the range of fewer says nothing about the others
_QUOTA = "trt_ptq.channels.quota"  # an input of the graph: the number of rows to sample from each tensor

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Half:
    """One of two halves of the batches: `amax` [channels] of the other half, and a sample of the `rows` of this one.

    What suits the range of its own data may clip other data: `rows` are such other data.
    """

    amax: Floats
    rows: Floats


@dataclass(frozen=True)
class Channels:
    """One tensor over the same samples.

    Attributes:
        amax: [channels], over all rows.
        rows: [n, channels], a sample of the rows.
        halves: every other batch, and the rest; all data if one of them has few rows or none, as with a single batch,
            or with decode steps of a single one.
    """

    amax: Floats
    rows: Floats
    halves: tuple[Half, ...]


def sample_channels(model: Model, source: BatchSource, tensors: Mapping[str, int]) -> dict[str, Channels]:
    """Measure the channels of tensors on up to 64 samples, where the channel axis is the last one.

    The model itself computes magnitudes and samples rows, so no complete tensor leaves it. Rows are spread evenly over
    all batches, at most 256 per tensor and 256 MB in total (three times that while they are collected).

    Args:
        model: The float model.
        source: The calibration data.
        tensors: Number of channels by tensor name, in graph order.

    Returns:
        The channels by tensor name.

    Raises:
        DataError: No batches, or the model fails on one.
    """
    session = _session(model, tensors)
    wanted = min(_MAX_ROWS, max(_MAX_BYTES // (4 * sum(tensors.values())), 1))
    amax = {name: np.zeros((2, channels), np.float32) for name, channels in tensors.items()}
    rows: dict[str, list[Floats]] = {name: [] for name in tensors}
    quota = wanted  # rows per batch; it shrinks as batches are added
    for index, batch in enumerate(Head(source, _SAMPLES)):
        limited = replace(batch, feeds={**batch.feeds, _QUOTA: np.array([quota])})
        results = iter(run_session(session, limited))
        for name in last_first(tensors):
            amax[name][index % 2] = np.maximum(amax[name][index % 2], next(results))
            rows[name].append(next(results))
        if max(sum(map(len, parts)) for parts in rows.values()) > 2 * wanted:
            rows = {name: [part[::2].copy() for part in parts] for name, parts in rows.items()}
            quota = max(quota // 2, 1)
    return {name: _channels(amax[name], rows.pop(name), wanted) for name in tensors}


def _channels(amax: Floats, parts: list[Floats], wanted: int) -> Channels:
    """The channels of a tensor, from `amax` [2, channels] of the halves and the rows of all batches."""
    largest, rows = amax.max(axis=0), _thinned(np.concatenate(parts), wanted)
    half_of_rows = _thinned(np.concatenate([np.full(len(part), index % 2) for index, part in enumerate(parts)]), wanted)
    halves = [Half(amax[1 - half], rows[half_of_rows == half]) for half in (0, 1)]
    are_comparable = all(len(half.rows) > len(rows) * _SMALLEST_HALF for half in halves)
    return Channels(largest, rows, tuple(halves) if are_comparable else (Half(largest, rows),))


def _thinned(rows: Array, wanted: int) -> Array:
    """Select at most `wanted` of the rows, evenly spaced."""
    return np.ascontiguousarray(rows[:: max(-(-len(rows) // wanted), 1)])


def _session(model: Model, tensors: Mapping[str, int]) -> ort.InferenceSession:
    """Computes, for each tensor, the last one first, the amax of its channels and as many rows as input `_QUOTA`."""
    graph = MeasuringGraph(model)
    quota = graph.add_input(_QUOTA)
    zero, one, end = (graph.constant([number]) for number in (0, 1, np.iinfo(np.int64).max))
    for name, channels in last_first(tensors).items():
        rows = graph.rows(name, channels)
        graph.add_output(graph.max_over(graph.node("Abs", rows), 0))
        count = graph.node("Slice", graph.node("Shape", rows), zero, one)
        rounded_up = graph.node("Sub", graph.node("Add", count, quota), one)
        step = graph.node("Max", graph.node("Div", rounded_up, quota), one)
        graph.add_output(graph.node("Slice", rows, zero, end, zero, step))
    return graph.session()
