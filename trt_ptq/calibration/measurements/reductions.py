"""The largest magnitude of tensors, computed by the model itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from trt_ptq.calibration.measurements.measuring_graph import MeasuringGraph, last_first
from trt_ptq.data.subset import Head
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import run_session
from trt_ptq.types import BatchSource

_REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceSum")

Reduced = Mapping[str, tuple[str, int | None]]


def reduce_amax(model: Model, source: BatchSource, tensors: Reduced, samples: int) -> dict[str, float]:
    """Measure the largest magnitude of tensors over the first batches of `source`.

    Args:
        model: The float model.
        source: The batches.
        tensors: What to measure, in graph order, by a name for the result: a float32 tensor of the model, and the axis
            over which its maximum is taken before, or None.
        samples: Number of samples to measure, from the start of `source`.

    Returns:
        The magnitude by name; NaN where a value is NaN or infinite, or the sum of all is.

    Raises:
        ModelError, DataError: There is no batch, or the model cannot be run on one, as with an empty tensor.
    """
    session = _session(model, tensors)
    amax = np.zeros(len(tensors), np.float32)
    for batch in Head(source, samples):
        reduced = np.array(run_session(session, batch), np.float32).reshape(-1, len(_REDUCTIONS))
        largest, smallest, total = reduced.T
        magnitude = np.maximum(largest, -smallest)
        amax = np.maximum(amax, np.where(np.isfinite(total), magnitude, np.nan))  # NaN stays NaN
    return dict(zip(last_first(tensors), amax.tolist(), strict=True))


def _session(model: Model, tensors: Reduced) -> ort.InferenceSession:
    """Computes the maximum, the minimum and the sum of each of `tensors`, the last one first."""
    graph = MeasuringGraph(model)
    for name, axis in last_first(tensors).values():
        value = graph.tensor(name) if axis is None else graph.max_over(graph.tensor(name), axis)
        for op_type in _REDUCTIONS:
            graph.add_output(graph.node(op_type, value, keepdims=0))
    return graph.session()
