"""Runs the float model over calibration batches and fills Statistics. Keeps no activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Literal

from trt_ptq.calibrators.batches import Batch, BatchSource, Feeds, Track, untracked
from trt_ptq.calibrators.errors import DataError, StatisticsError
from trt_ptq.calibrators.provenance import DataFingerprint
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator, TensorStatistics
from trt_ptq.collect.session import runtime_version
from trt_ptq.collect.tapped import TappedModel
from trt_ptq.graph.model import Model
from trt_ptq.graph.taps import Taps
from trt_ptq.version import __version__

Nonfinite = Literal["refuse", "skip"]


def collect(
    model: Model,
    source: BatchSource,
    taps: Taps,
    nonfinite: Nonfinite = "refuse",
    track: Track = untracked,
    passes: Sequence[Sequence[str]] = (),
    threads: int | None = None,
) -> Statistics:
    """Statistics of the `taps` of `model` over all batches of `source`.

    With `passes` (see `plan_passes`), the data is gone through once for each group of tensors. Inference and counting
    take turns on `threads` threads, by default one for each core: side by side, they were slower on two cores.

    Raises:
        DataError: a batch on which the model fails, or (unless `nonfinite` is "skip") a NaN or infinity in a
            tensor; names tensor and batch. Or a source that gives other data in a later pass.
    """
    groups = passes or (taps.tensors,)
    tensors: dict[str, TensorStatistics] = {}
    data = DataFingerprint()
    for number, names in enumerate(groups, start=1):
        description = "Calibrating" if len(groups) == 1 else f"Calibrating, pass {number} of {len(groups)}"
        batches = track(source, description, source.total)
        measured, seen = _measure(TappedModel(model, names, threads), names, batches, nonfinite, threads)
        if number > 1 and seen != data:
            raise DataError(
                f"the data was not the same in pass {number} ({seen.samples} samples) as in pass 1 ({data.samples}): "
                "a loader must yield the same batches each time"
            )
        data = seen
        tensors |= measured
    return Statistics(
        model=model.identity,
        data=data,
        tools=(runtime_version(), f"trt_ptq {__version__}"),
        tensors={name: tensors[name] for name in taps.tensors},
        shares_range=taps.shares_range,
    )


def _measure(
    tapped: TappedModel, names: Sequence[str], batches: Iterable[Batch], nonfinite: Nonfinite, threads: int | None
) -> tuple[dict[str, TensorStatistics], DataFingerprint]:
    """Statistics of the tensors `names` over all batches, and of what data."""
    accumulators = {name: TensorAccumulator() for name in names}
    data = DataFingerprint()
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        for batch in batches:
            arrays = tapped.run(batch)
            counts = {name: pool.submit(accumulators[name].update, arrays[name]) for name in names}
            found = {name: count.result() for name, count in counts.items()}
            if nonfinite == "refuse":
                _refuse_nonfinite(found, arrays, batch)
            data += DataFingerprint.of(batch.feeds)
    if not data.samples:
        raise DataError("the data has no batches")
    return {name: accumulator.statistics() for name, accumulator in accumulators.items()}, data


def _refuse_nonfinite(found: Mapping[str, int], arrays: Feeds, batch: Batch) -> None:
    for name, count in found.items():  # in graph order: the first one is where it began
        if count:
            raise DataError(
                f"{batch.origin}: tensor {name!r} has {count} NaN or infinite values of {arrays[name].size}: "
                "leave the batch out, or count and skip them with --nonfinite skip"
            )


def check_statistics(statistics: Statistics, model: Model, where: str) -> None:
    """Make sure that `statistics` are of `model`.

    Raises:
        StatisticsError: with what differs.
    """
    difference = statistics.model.difference(model.identity)
    if difference:
        raise StatisticsError(f"{where}: of another model than {model.path}: {difference}; calibrate again")
