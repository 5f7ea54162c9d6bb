"""Splits calibration into several passes over the data if the tensors of one batch do not fit in memory together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from trt_ptq._internal.hardware.process_memory import PeakMemory
from trt_ptq.analysis.dynamic_sizes import dynamic_sizes, known_shape
from trt_ptq.calibration.observed.buffer_memory import BufferMemory
from trt_ptq.calibration.tensors import (
    CalibrationTensors,
    model_with_outputs,
    runnable_outputs,
    select_calibration_tensors,
)
from trt_ptq.errors import DataError, UsageError
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session, run_session
from trt_ptq.types import Batch, BatchSource

Passes = tuple[tuple[str, ...], ...]

_MB = 1_000_000


def plan_calibration(
    model: Model,
    source: BatchSource,
    tensors: Sequence[str],
    attention: bool = False,
    limit_bytes: int | None = None,
) -> tuple[CalibrationTensors, Passes]:
    """Select which tensors to measure, and in which passes over the data: a single one without a limit.

    Raises:
        DataError, UsageError: see `select_calibration_tensors` and `plan_passes`.
    """
    calibration_tensors = select_calibration_tensors(model, tensors, attention)
    if limit_bytes is None:
        return calibration_tensors, (calibration_tensors.tensors,)
    return calibration_tensors, plan_passes(model, calibration_tensors, source, limit_bytes)


def plan_passes(model: Model, calibration_tensors: CalibrationTensors, source: BatchSource, limit_bytes: int) -> Passes:
    """Group the tensors into passes so that the process stays below `limit_bytes`, judged by the first batch.

    The model first runs once without extra outputs. A pass may use the limit minus the peak memory of the process in
    that run; memory that was freed earlier does not count. Tensors that are not needed at the same time use the same
    memory; see `BufferMemory`. Those whose shape the graph does not determine count twice, since ONNX Runtime allocates
    them before they are copied.

    Args:
        model: The float model.
        calibration_tensors: The tensors to measure.
        source: The calibration data.
        limit_bytes: The memory limit of the process.

    Returns:
        The names of the tensors of each pass.

    Raises:
        DataError: No batches, or the model fails on the first one.
        UsageError: The limit is too low for a single tensor; says which limit is enough.
    """
    memory = PeakMemory()
    first = first_batch(source)
    sizes = tensor_bytes(model, calibration_tensors.tensors, first)
    used = memory.peak_bytes()
    used += sum(array.nbytes for array in first.feeds.values())  # the next batch is loaded while this one is in memory
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    if largest is not None and used + sizes[largest] > limit_bytes:
        raise UsageError(
            f"`memory_limit={limit_bytes // _MB}MB` is too low: with {first.origin} the process already takes "
            f"{used // _MB} MB, and tensor {largest!r} {-(-sizes[largest] // _MB)} MB; raise it to "
            f"{-(-(used + sizes[largest]) // _MB)}MB, or use smaller batches"
        )
    return _largest_groups(calibration_tensors.tensors, BufferMemory(model, sizes), limit_bytes - used)


def _largest_groups(tensors: Sequence[str], memory: BufferMemory, available_bytes: int) -> Passes:
    """Group tensors, in order, each time as many as fit into `available_bytes` together; one at least."""
    passes: list[tuple[str, ...]] = []
    rest = tuple(tensors)
    while rest:
        fitting, too_many = 1, len(rest) + 1
        count = len(rest)
        while too_many - fitting > 1:
            if memory.bytes_for(rest[:count]) <= available_bytes:
                fitting = count
            else:
                too_many = count
            count = (fitting + too_many) // 2
        passes.append(rest[:fitting])
        rest = rest[fitting:]
    return tuple(passes) or ((),)


def first_batch(source: BatchSource) -> Batch:
    """Return the first batch of `source`.

    Raises:
        DataError: There is none.
    """
    first = next(iter(source), None)
    if first is None:
        raise DataError("the data has no batches")
    return first


def group_tensors(sizes: Mapping[str, int], available_bytes: int) -> Passes:
    """Group tensors, in order, so that each group fits into `available_bytes`; larger tensors get their own group.

    Args:
        sizes: Bytes of each tensor, by name.
        available_bytes: Memory for one group.
    """
    passes: list[list[str]] = [[]]
    left = available_bytes
    for name, size in sizes.items():
        if size > left and passes[-1]:
            passes.append([])
            left = available_bytes
        passes[-1].append(name)
        left -= size
    return tuple(map(tuple, passes))


def tensor_bytes(model: Model, names: Sequence[str], batch: Batch) -> dict[str, int]:
    """Return the bytes of memory that measuring each tensor takes for `batch`; 0 for inputs. Runs the model once."""
    inputs = {spec.name for spec in model.inputs}
    computed = [name for name in names if name not in inputs]
    outputs = runnable_outputs(model) or tuple(computed[:1])
    observed = model_with_outputs(model, [*dict.fromkeys([*outputs, *computed])])
    with externalized(model, observed) as (proto, folder):
        values = {value.name: onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in proto.graph.output}
        dimensions = dynamic_sizes(model.inputs, batch.feeds)
        shapes = {name: known_shape(values[name], dimensions) for name in computed}
        unknown = [name for name in computed if shapes[name] is None]
        del proto.graph.output[:]
        proto.graph.output.extend(values[name] for name in outputs)
        for name in unknown:
            proto.graph.node.append(helper.make_node("Shape", [name], [f"{name} shape"]))
            proto.graph.output.append(helper.make_tensor_value_info(f"{name} shape", onnx.TensorProto.INT64, None))
        session = create_session(proto, folder, str(model.path))
    measured_shapes = run_session(session, batch)[len(outputs) :]
    sizes = {name: 2 * _bytes(values[name], tuple(shape)) for name, shape in zip(unknown, measured_shapes, strict=True)}
    sizes |= {name: _bytes(values[name], shape) for name, shape in shapes.items() if shape is not None}
    return {name: sizes.get(name, 0) for name in names}


def _bytes(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
