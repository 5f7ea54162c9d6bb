"""The second moments of tensors: how the channels of each go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from trt_ptq._internal.hardware.process_memory import PeakMemory
from trt_ptq.calibration.measurements.measuring_graph import MeasuringGraph, last_first
from trt_ptq.calibration.memory_planner import first_batch, tensor_bytes
from trt_ptq.choices import Nonfinite
from trt_ptq.data.subset import Head
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import run_part
from trt_ptq.onnx_io.save import weights_size_bytes
from trt_ptq.types import BatchSource

DEFAULT_SAMPLES = 64
_MIN_ROWS, _ROWS_PER_CHANNEL = 4096, 2  # enough for the products of channels to stand out from chance
_MIN_BYTES = 2**29  # that the products of a pass may take; an eighth of the weights where that is more
_BYTES_PER_VALUE = 12  # float64 for the sum, and float32 for those of a batch

Doubles = npt.NDArray[np.float64]


def measure_second_moments(
    model: Model,
    source: BatchSource,
    tensors: Mapping[str, int],
    samples: int = DEFAULT_SAMPLES,
    *,
    nonfinite: Nonfinite = "refuse",
    limit_bytes: int | None = None,
) -> Iterator[tuple[str, Doubles]]:
    """Measure mean(x x^T) over all rows x of tensors, where the channel axis is the last one.

    The model itself computes the products, so no complete tensor leaves it. Many or wide tensors take several passes
    over the batches, each only through the part of the model that it needs. A pass ends early when it has seen
    twice as many rows as the widest tensor has channels, and at least 4096.

    Args:
        model: The float model.
        source: The calibration data.
        tensors: Number of channels by tensor name, in graph order.
        samples: Largest number of samples to measure, from the start of `source`.
        nonfinite: Whether rows with NaN or infinite values are refused or left out.
        limit_bytes: The memory limit of the process. A pass takes one tensor at least, however low the limit is.

    Yields:
        Name and moments [channels, channels] of each tensor, in the order of `tensors`.

    Raises:
        DataError: No batches, the model fails on one, or NaN or infinite values are refused.
        UsageError: `limit_bytes` on a system that does not report memory.
    """
    limit = max(_MIN_BYTES, weights_size_bytes(model.to_ir()) // 8)
    if limit_bytes is not None:
        limit = min(limit, _free_bytes(model, source, tensors, limit_bytes))
    for group in _groups(tensors, limit // _BYTES_PER_VALUE):
        sums = _measure(model, source, group, samples, nonfinite)
        while sums:  # so that each is freed when its reader is done
            name = next(iter(sums))
            yield name, sums.pop(name)


def _free_bytes(model: Model, source: BatchSource, tensors: Mapping[str, int], limit_bytes: int) -> int:
    """What `limit_bytes` leaves free while the model runs."""
    memory = PeakMemory()
    tensor_bytes(model, list(tensors), first_batch(source))
    return limit_bytes - memory.peak_bytes()


def _groups(tensors: Mapping[str, int], max_values: int) -> list[dict[str, int]]:
    """Group `tensors`, in order, into those that are measured in one pass."""
    groups: list[dict[str, int]] = []
    size = 0
    for name, channels in tensors.items():
        size += channels**2
        if not groups or size > max_values:
            groups.append({})
            size = channels**2
        groups[-1][name] = channels
    return groups


def _measure(
    model: Model, source: BatchSource, tensors: Mapping[str, int], samples: int, nonfinite: Nonfinite
) -> dict[str, Doubles]:
    session = _session(model, tensors, nonfinite)
    sums = {name: np.zeros((channels, channels)) for name, channels in tensors.items()}
    counts = dict.fromkeys(tensors, 0)
    enough = max(_MIN_ROWS, _ROWS_PER_CHANNEL * max(tensors.values()))
    for batch in Head(source, samples):
        results = run_part(session, batch)
        for name, product, count in zip(last_first(tensors), results[::2], results[1::2], strict=True):
            if not np.isfinite(product).all():
                raise DataError(
                    f"{batch.origin}: tensor {name!r} has NaN or infinite values: remove the batch, or quantize "
                    "without GPTQ"
                )
            sums[name] += product
            counts[name] += int(count.item())
        if min(counts.values()) >= enough:
            break
    for name in sums:
        sums[name] /= max(counts[name], 1)
    return sums


def _session(model: Model, tensors: Mapping[str, int], nonfinite: Nonfinite) -> ort.InferenceSession:
    """Computes X^T X and the number of rows of each tensor X, the last one first; of its finite rows to skip others."""
    graph = MeasuringGraph(model)
    zero, one, nothing = graph.constant([0]), graph.constant([1]), graph.constant(np.zeros(1, np.float32))
    for name, channels in last_first(tensors).items():
        rows = graph.rows(name, channels)
        count = graph.node("Slice", graph.node("Shape", rows), zero, one)
        if nonfinite == "skip":  # NaN - NaN and infinity - infinity are NaN, and so is their sum
            ones = graph.constant(np.ones((channels, 1), np.float32))
            sums = graph.node("MatMul", graph.node("Sub", rows, rows), ones)
            is_finite = graph.node("Equal", sums, nothing)
            rows = graph.node("Where", is_finite, rows, nothing)
            count = graph.node("ReduceSum", graph.node("Cast", is_finite, to=ir.DataType.INT64.value))
        graph.add_output(graph.node("MatMul", graph.node("Transpose", rows, perm=[1, 0]), rows))
        graph.add_output(count, ir.DataType.INT64)
    return graph.session()
