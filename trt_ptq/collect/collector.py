"""Runs the float model over calibration batches and fills Statistics. Keeps no activations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Literal

from trt_ptq.calibrators.batches import Batch, BatchSource, Feeds, Track, untracked
from trt_ptq.calibrators.errors import DataError, StatisticsError
from trt_ptq.calibrators.provenance import DataFingerprint
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator
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
    threads: int | None = None,
) -> Statistics:
    """Statistics of the `taps` of `model` over all batches of `source`.

    Raises:
        DataError: a batch on which the model fails, or (unless `nonfinite` is "skip") a NaN or infinity in a
            tensor; names tensor and batch.
    """
    tapped = TappedModel(model, taps.tensors, threads)
    accumulators = {name: TensorAccumulator() for name in taps.tensors}
    data = DataFingerprint()
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        for batch in track(source, "Calibrating", source.total):
            measured = tapped.run(batch)
            counts = [pool.submit(accumulators[name].update, measured[name]) for name in taps.tensors]
            found = {name: count.result() for name, count in zip(taps.tensors, counts, strict=True)}
            if nonfinite == "refuse":
                _refuse_nonfinite(found, measured, batch)
            data += DataFingerprint.of(batch.feeds)
    if not data.samples:
        raise DataError("the data has no batches")
    return Statistics(
        model=model.identity,
        data=data,
        tools=(runtime_version(), f"trt_ptq {__version__}"),  # sorted, as a merge leaves them
        tensors={name: accumulator.statistics() for name, accumulator in accumulators.items()},
        shares_range=taps.shares_range,
    )


def _refuse_nonfinite(found: dict[str, int], measured: Feeds, batch: Batch) -> None:
    for name, count in found.items():  # in graph order: the first one is where it began
        if count:
            raise DataError(
                f"{batch.origin}: tensor {name!r} has {count} NaN or infinite values of {measured[name].size}: "
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
