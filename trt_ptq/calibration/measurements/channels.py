"""The largest magnitude of each channel of a tensor, and a sample of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.data.subset import Head
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session, run_session
from trt_ptq.types import BatchSource

DEFAULT_SAMPLES = 64  # samples
_MAX_ROWS = 256
_MAX_BYTES = 2**28  # of all rows together
_PREFIX = "trt_ptq.channels"
_QUOTA = f"{_PREFIX}.quota"  # an input of the model: the number of rows to sample from each tensor
_AXES_ARE_AN_INPUT = 18  # since this opset

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """One tensor over the same samples: `amax` [channels] over all rows, and a sample of `rows` [n, channels]."""

    amax: Floats
    rows: Floats


def sample_channels(
    model: Model, source: BatchSource, tensors: Mapping[str, int], samples: int = DEFAULT_SAMPLES
) -> dict[str, Channels]:
    """Measure the channels of tensors, where the channel axis is the last one.

    The model itself computes magnitudes and samples rows, so no complete tensor leaves it. Rows are spread evenly over
    all batches, at most 256 per tensor and 256 MB in total (three times that while they are collected).

    Args:
        model: The float model.
        source: The calibration data.
        tensors: Number of channels by tensor name, in graph order.
        samples: Number of samples to measure, from the start of `source`.

    Returns:
        The channels by tensor name.

    Raises:
        DataError: No batches, or the model fails on one.
    """
    # ONNX Runtime starts with what was added last, so that each tensor is reduced, and freed, before the next ones.
    backwards = dict(reversed(list(tensors.items())))
    with externalized(model, _with_channels(model, backwards)) as (proto, folder):
        session = create_session(proto, folder, str(model.path))
    wanted = min(_MAX_ROWS, max(_MAX_BYTES // (4 * sum(tensors.values())), 1))
    amax = {name: np.zeros(channels, np.float32) for name, channels in tensors.items()}
    rows: dict[str, list[Floats]] = {name: [] for name in tensors}
    quota = wanted  # rows per batch; it shrinks as batches are added
    for batch in Head(source, samples):
        limited = replace(batch, feeds={**batch.feeds, _QUOTA: np.array([quota])})
        results = iter(run_session(session, limited))
        for name in backwards:
            amax[name] = np.maximum(amax[name], next(results))
            rows[name].append(next(results))
        if max(sum(map(len, parts)) for parts in rows.values()) > 2 * wanted:
            rows = {name: [part[::2].copy() for part in parts] for name, parts in rows.items()}
            quota = max(quota // 2, 1)
    return {name: Channels(amax[name], _thinned(np.concatenate(rows[name]), wanted)) for name in tensors}


def _thinned(rows: Floats, wanted: int) -> Floats:
    """Select at most `wanted` of the rows, evenly spaced."""
    return np.ascontiguousarray(rows[:: max(-(-len(rows) // wanted), 1)])


def _with_channels(model: Model, tensors: Mapping[str, int]) -> ir.Model:
    """Return a model that computes, for each tensor, the amax of its channels and as many rows as input `_QUOTA`."""
    part = model.to_ir()
    graph = part.graph
    values = {value.name: value for node in graph for value in node.outputs}
    values |= {value.name: value for value in graph.inputs}
    graph.outputs.clear()

    editor = GraphEditor(graph)
    append = partial(editor.node, _PREFIX)

    def constant(*numbers: int) -> ir.Value:
        return editor.constant(_PREFIX, ir.tensor(np.array(numbers)))

    quota = ir.Value(name=_QUOTA, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    graph.inputs.append(quota)
    zero, one, end = constant(0), constant(1), constant(np.iinfo(np.int64).max)
    for name, channels in tensors.items():
        rows = append("Reshape", values[name], constant(-1, channels))
        size = append("Abs", rows)
        by_input = model.opset >= _AXES_ARE_AN_INPUT
        amax = append(
            "ReduceMax", size, *([zero] if by_input else []), keepdims=0, **({} if by_input else {"axes": [0]})
        )
        count = append("Slice", append("Shape", rows), zero, one)
        step = append("Max", append("Div", append("Sub", append("Add", count, quota), one), quota), one)
        for output in (amax, append("Slice", rows, zero, end, zero, step)):
            output.type = ir.TensorType(ir.DataType.FLOAT)
            graph.outputs.append(output)
    return passes.RemoveUnusedNodesPass()(part).model
