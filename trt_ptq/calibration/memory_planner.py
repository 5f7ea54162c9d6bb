"""Tapping in several passes over the data, when the tensors of one batch do not fit in memory together."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from trt_ptq.analysis.dynamic_sizes import dynamic_sizes, known_shape
from trt_ptq.calibration.tensors import CalibrationTensors, model_with_outputs
from trt_ptq.errors import DataError, UsageError
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session, run_session
from trt_ptq.types import Batch, BatchSource

Passes = tuple[tuple[str, ...], ...]

_MB = 1_000_000


def plan_passes(model: Model, calibration_tensors: CalibrationTensors, source: BatchSource, limit_bytes: int) -> Passes:
    """The tensors to tap in each pass so that the process stays below `limit_bytes`, judged by the first batch.

    The model runs once without taps. What fits in one pass is the limit less the most that the process has used by
    then. Tensors whose shape the graph does not tell count twice: ONNX Runtime allocates them before they are kept.

    Raises:
        DataError: no batches, or the model fails on the first one.
        UsageError: the limit is too low for a single tensor; says what would do.
    """
    first = first_batch(source)
    sizes = tensor_bytes(model, calibration_tensors.tensors, first)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    used += sum(array.nbytes for array in first.feeds.values())  # the next batch is read while this one is held
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    if largest is not None and used + sizes[largest] > limit_bytes:
        raise UsageError(
            f"--memory-limit {limit_bytes // _MB}MB is too low: with {first.origin} the model alone takes "
            f"{used // _MB} MB, and tensor {largest!r} {-(-sizes[largest] // _MB)} MB: allow "
            f"{-(-(used + sizes[largest]) // _MB)}MB, or give smaller batches"
        )
    return group_tensors(sizes, limit_bytes - used)


def first_batch(source: BatchSource) -> Batch:
    """The batch by which a plan is made.

    Raises:
        DataError: there is none.
    """
    first = next(iter(source), None)
    if first is None:
        raise DataError("the data has no batches")
    return first


def group_tensors(sizes: Mapping[str, int], room: int) -> Passes:
    """Passes of as many tensors, in their order, as fit into `room` bytes together; one that does not is alone."""
    passes: list[list[str]] = [[]]
    left = room
    for name, size in sizes.items():
        if size > left and passes[-1]:
            passes.append([])
            left = room
        passes[-1].append(name)
        left -= size
    return tuple(map(tuple, passes))


def tensor_bytes(model: Model, names: Sequence[str], batch: Batch) -> dict[str, int]:
    """Bytes that measuring each tensor takes for `batch`, none for inputs; the model runs on it once, wholly."""
    inputs = {one.name for one in model.inputs}
    tensors = [name for name in names if name not in inputs]
    with externalized(model, model_with_outputs(model, [*dict.fromkeys([*model.outputs, *tensors])])) as (
        proto,
        folder,
    ):
        values = {value.name: onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in proto.graph.output}
        open_axes = dynamic_sizes(model.inputs, batch.feeds)
        shapes = {name: known_shape(values[name], open_axes) for name in tensors}
        asked = [name for name in tensors if shapes[name] is None]
        del proto.graph.output[:]
        proto.graph.output.extend(values[name] for name in model.outputs)
        for name in asked:
            proto.graph.node.append(helper.make_node("Shape", [name], [f"{name} shape"]))
            proto.graph.output.append(helper.make_tensor_value_info(f"{name} shape", onnx.TensorProto.INT64, None))
        session = create_session(proto, folder, str(model.path))
    answers = run_session(session, batch)[len(model.outputs) :]
    answered = {name: 2 * _bytes(values[name], tuple(answer)) for name, answer in zip(asked, answers, strict=True)}
    sizes = answered | {name: _bytes(values[name], shape) for name, shape in shapes.items() if shape is not None}
    return {name: sizes.get(name, 0) for name in names}


def _bytes(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
