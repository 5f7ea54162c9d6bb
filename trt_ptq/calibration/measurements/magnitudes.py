"""The largest magnitude of every float32 tensor, to decide which tensors fit into float16."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.analysis.dataflow import name_of
from trt_ptq.analysis.plugins import unrunnable_values
from trt_ptq.calibration.devices import HostDevice
from trt_ptq.calibration.measurements.reductions import reduce_amax
from trt_ptq.calibration.memory_planner import Passes, first_batch, group_tensors, plan_passes, tensor_bytes
from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.data.subset import Head
from trt_ptq.errors import DataError, ModelError
from trt_ptq.fp16.attention_masks import row_maxima
from trt_ptq.fp16.convertible_io import is_float32
from trt_ptq.onnx_io.domains import ONNX_DOMAINS
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Array, BatchSource

DEFAULT_SAMPLES = 16  # float16_range.MARGIN leaves headroom for further samples
_PASS_BYTES = 1_000_000_000  # for the tensors of one pass, by default
_CHUNK = 2**16  # values


def float32_tensors(model: Model) -> tuple[str, ...]:
    """Return the names of all float32 tensors of the main graph that are not constants and do not depend on plugins."""
    graph = model.to_ir().graph
    unrunnable = unrunnable_values(graph)
    values = [*graph.inputs, *(out for node in graph for out in node.outputs)]
    return tuple(
        str(value.name)
        for value in values
        if is_float32(value) and value.name and not value.is_initializer() and value not in unrunnable
    )


def measure_amax(
    model: Model,
    source: BatchSource,
    limit_bytes: int | None = None,
    samples: int = DEFAULT_SAMPLES,
    only: Collection[str] | None = None,
) -> dict[str, float]:
    """Measure the largest finite magnitude of the `float32_tensors`, and of the `row_maxima` of Softmax inputs.

    The model reduces the tensors itself, and only those with NaN or infinite values are looked at.

    Args:
        model: The float model.
        source: The calibration data.
        limit_bytes: The memory limit of the process; see `plan_passes`.
        samples: Number of samples to measure, from the start of `source`.
        only: Measure only those of these names.

    Returns:
        The magnitude by tensor name; NaN if the tensor has a NaN.

    Raises:
        DataError: No batches, or the model fails on one.
    """
    names = [name for name in float32_tensors(model) if only is None or name in only]
    if not names:
        return {}
    axes = {name: axis for name, axis in _softmax_axes(model).items() if name in names}
    reduced: dict[str, tuple[str, int | None]] = {}
    for name in names:
        reduced[name] = (name, None)
        if name in axes:
            reduced[row_maxima(name)] = (name, axes[name])
    try:
        amax = reduce_amax(model, source, reduced, samples)
    except (ModelError, DataError):  # ONNX Runtime does not reduce an empty tensor; other errors are raised again below
        amax = dict.fromkeys(reduced, math.nan)
    unknown = {name for result, (name, _) in reduced.items() if math.isnan(amax[result])}
    for group in _passes(model, source, [name for name in names if name in unknown], limit_bytes):
        amax |= _measure_pass(model, source, group, samples, {name: axes[name] for name in group if name in axes})
    return amax


def _passes(model: Model, source: BatchSource, names: list[str], limit_bytes: int | None) -> Passes:
    if not names:
        return ()
    if limit_bytes is not None:
        return plan_passes(model, CalibrationTensors(tuple(names), {}), source, limit_bytes)
    return group_tensors(tensor_bytes(model, names, first_batch(source)), _PASS_BYTES)


def _softmax_axes(model: Model) -> dict[str, int]:
    """The axis of each Softmax in the main graph, by its input; not of one that is read along several axes."""
    axes: dict[str, set[int]] = {}
    for node in model.to_ir().graph:
        if node.op_type == "Softmax" and node.domain in ONNX_DOMAINS and node.inputs[0]:
            axes.setdefault(name_of(node.inputs[0]), set()).add(node.attributes.get_int("axis", -1))
    return {name: axis.pop() for name, axis in axes.items() if len(axis) == 1}


def combine_amax(measured: dict[str, float], statistics: Statistics) -> dict[str, float]:
    """Return the maximum of `measured` and of the statistics of the same tensors, which cover all data."""
    known = {name: tensor.amax for name, tensor in statistics.tensors.items()}
    return {name: max(value, known.get(name, value)) for name, value in measured.items()}


def _measure_pass(
    model: Model, source: BatchSource, names: Sequence[str], samples: int, axes: Mapping[str, int]
) -> dict[str, float]:
    observed = ObservedModel(model, names, HostDevice())
    found = dict.fromkeys([*names, *map(row_maxima, axes)], np.float32(0))
    with ThreadPoolExecutor(usable_cores()) as pool:
        for batch in Head(source, samples):
            for arrays in observed.run(batch):
                measured = dict(zip(arrays, pool.map(_amax, arrays.values()), strict=True))
                measured |= {
                    row_maxima(name): _amax(_row_maxima(arrays[name], axis))
                    for name, axis in axes.items()
                    if name in arrays
                }
                found |= {name: np.maximum(found[name], amax) for name, amax in measured.items()}  # NaN stays NaN
    return {name: float(amax) for name, amax in found.items()}


def _row_maxima(array: Array, axis: int) -> Array:
    return array.max(axis) if array.size else array


def _amax(array: Array) -> np.float32:
    """Return the largest finite magnitude of float32 `array`, or NaN if it has one, without a copy of the array."""
    if not array.size:
        return np.float32(0)
    amax = np.maximum(array.max(), -array.min())
    if not np.isinf(amax):
        return np.float32(amax)
    flat = array.reshape(-1)
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return max(np.abs(part[np.isfinite(part)]).max(initial=np.float32(0)) for part in parts)
