"""The second moments of tensors: how the channels of each go together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from trt_ptq._internal.hardware.process_memory import PeakMemory
from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.calibration.measurements.handover import handed_over
from trt_ptq.calibration.measurements.measuring_graph import MeasuringGraph, last_first
from trt_ptq.calibration.memory_planner import first_batch, tensor_bytes
from trt_ptq.choices import Nonfinite
from trt_ptq.data.scratch import Scratch, StoredArrays
from trt_ptq.data.subset import Head
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import run_part
from trt_ptq.onnx_io.save import weights_size_bytes
from trt_ptq.types import Batch, BatchSource

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
    over the batches, each through the part of the model after that of the pass before, which hands over what is read
    there, in temporary files. The passes end early when they have seen twice as many rows as the widest tensor has
    channels, and at least 4096.

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
    groups = _groups(tensors, limit // _BYTES_PER_VALUE)
    batches = _Batches(Head(source, samples), max(_MIN_ROWS, _ROWS_PER_CHANNEL * max(tensors.values(), default=0)))
    with temporary_folder() as folder:
        for index, (group, later) in enumerate(
            zip(groups, [*handed_over(model.to_ir().graph, groups), ()], strict=True)
        ):
            sums, batches = _measure(model, batches, group, later, nonfinite, folder / str(index))
            while sums:  # so that each is freed when its reader is done
                name = next(iter(sums))
                yield name, sums.pop(name)


@dataclass(frozen=True)
class _Batches:
    """The batches of a pass.

    Attributes:
        source: What the model reads.
        enough: Rows of each tensor after which the pass ends.
        given: The tensors that the pass starts at.
        stored: Their values, for each batch.
        folder: Where these are.
    """

    source: BatchSource
    enough: int
    given: tuple[str, ...] = ()
    stored: tuple[StoredArrays, ...] = ()
    folder: Path | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self.folder is None:
            yield from self.source
            return
        for batch, stored in zip(self.source, self.stored, strict=False):
            yield Batch({**batch.feeds, **stored.load()}, batch.origin)

    def remove(self) -> None:
        """Remove what is stored."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)  # Windows does not remove what is still mapped into memory


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
    model: Model,
    batches: _Batches,
    tensors: Mapping[str, int],
    later: tuple[str, ...] | None,
    nonfinite: Nonfinite,
    folder: Path,
) -> tuple[dict[str, Doubles], _Batches]:
    """The moments of `tensors`, and the batches of the next pass, which starts at the tensors `later` if it can."""
    new = [name for name in later or () if name not in batches.given]
    session = _session(model, tensors, batches.given, new, nonfinite)
    sums = {name: np.zeros((channels, channels)) for name, channels in tensors.items()}
    counts = dict.fromkeys(tensors, 0)
    folder.mkdir()
    scratch = Scratch(folder)
    stored: list[StoredArrays | None] = []
    for batch in batches:
        results = run_part(session, batch)
        measured = 2 * len(tensors)
        for name, product, count in zip(last_first(tensors), results[:measured:2], results[1:measured:2], strict=True):
            if not np.isfinite(np.diagonal(product)).all():  # no other product of two channels is larger
                raise DataError(
                    f"{batch.origin}: tensor {name!r} has NaN or infinite values: remove the batch, or quantize "
                    "without GPTQ"
                )
            sums[name] += product
            counts[name] += int(count.item())
        if later:
            known = {**batch.feeds, **dict(zip(new, results[measured:], strict=True))}
            stored.append(scratch.store({name: known[name] for name in later}))
        if min(counts.values()) >= batches.enough:
            break
    for name in sums:
        sums[name] /= max(counts[name], 1)
    complete = tuple(arrays for arrays in stored if arrays is not None)
    if not later or len(complete) < len(stored):
        shutil.rmtree(folder)
        return sums, batches
    batches.remove()
    return sums, replace(batches, given=later, stored=complete, folder=folder)


def _session(
    model: Model, tensors: Mapping[str, int], given: Sequence[str], later: Sequence[str], nonfinite: Nonfinite
) -> ort.InferenceSession:
    """Computes X^T X and the number of rows of each tensor X, the last one first; of its finite rows to skip others.

    After them come the tensors `later`. The tensors `given` are inputs.
    """
    graph = MeasuringGraph(model)
    graph.start_at(given)
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
    for name in later:
        value = graph.tensor(name)
        assert value.dtype is not None
        graph.add_output(value, value.dtype)
    return graph.session()
