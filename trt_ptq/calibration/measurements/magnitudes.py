"""The largest magnitude of every float32 tensor, for deciding what float16 can hold."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from trt_ptq._internal.cpu import usable_cores
from trt_ptq.calibration.devices import HostDevice
from trt_ptq.calibration.memory_planner import first_batch, group_tensors, tensor_bytes
from trt_ptq.calibration.observed_model import ObservedModel
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.data.subset import Head
from trt_ptq.fp16.convertible_io import is_float32
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Array, BatchSource

DEFAULT_SAMPLES = 16  # samples: float16_range.MARGIN leaves room for the others
_ROOM = 1_000_000_000  # bytes for the tensors of one pass, unless told
_CHUNK = 2**16


def float32_tensors(model: Model) -> CalibrationTensors:
    """All float32 tensors of the main graph that are no constants, each with a range of its own."""
    graph = model.to_ir().graph
    values = [*graph.inputs, *(out for node in graph for out in node.outputs)]
    names = [str(one.name) for one in values if is_float32(one) and one.name and not one.is_initializer()]
    return CalibrationTensors(tuple(names), {})


def measure_amax(
    model: Model, source: BatchSource, passes: Sequence[Sequence[str]] = (), samples: int = DEFAULT_SAMPLES
) -> dict[str, float]:
    """The largest finite magnitude of each of the `float32_tensors`; NaN if one of its values is.

    Over the first batches of `source` that hold `samples` samples, once for each of `passes` (see `plan_passes`).

    Raises:
        DataError: no batches, or one on which the model fails.
    """
    if not passes:
        sizes = tensor_bytes(model, float32_tensors(model).tensors, first_batch(source))
        passes = group_tensors(sizes, _ROOM)
    found: dict[str, float] = {}
    for names in passes:
        found |= _of_one_pass(model, source, names, samples)
    return found


def combine_amax(measured: dict[str, float], statistics: Statistics) -> dict[str, float]:
    """`measured`, raised to what `statistics` saw of the same tensors over all data."""
    seen = {name: tensor.amax for name, tensor in statistics.tensors.items()}
    return {name: max(value, seen.get(name, value)) for name, value in measured.items()}


def _of_one_pass(model: Model, source: BatchSource, names: Sequence[str], samples: int) -> dict[str, float]:
    observed = ObservedModel(model, names, HostDevice())
    found = np.zeros(len(names), np.float32)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for batch in Head(source, samples):
            arrays = observed.run(batch)
            found = np.maximum(found, list(pool.map(_amax, (arrays[name] for name in names))))  # NaN stays NaN
    return dict(zip(names, found.tolist(), strict=True))


def _amax(array: Array) -> np.float32:
    """The largest finite magnitude of float32 `array`, without another array of its size; NaN if it has one."""
    if not array.size:
        return np.float32(0)
    amax = np.maximum(array.max(), -array.min())
    if not np.isinf(amax):
        return np.float32(amax)
    flat = array.reshape(-1)
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return max(np.abs(part[np.isfinite(part)]).max(initial=np.float32(0)) for part in parts)
