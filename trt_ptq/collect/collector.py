"""Runs the float model over calibration batches, once, and fills Statistics. Keeps no activations."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Literal

import numpy as np
import onnxruntime as ort

from trt_ptq.calibrators.batches import Array, Batch, BatchSource, Feeds, Track, untracked
from trt_ptq.calibrators.errors import DataError, StatisticsError
from trt_ptq.calibrators.provenance import DataFingerprint
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator
from trt_ptq.collect.session import create_session, runtime_version
from trt_ptq.graph.model import Model
from trt_ptq.graph.taps import Taps, with_outputs
from trt_ptq.version import __version__

Nonfinite = Literal["refuse", "skip"]


def collect(
    model: Model, source: BatchSource, taps: Taps, nonfinite: Nonfinite = "refuse", track: Track = untracked
) -> Statistics:
    """Statistics of the `taps` of `model` over all batches of `source`.

    Raises:
        DataError: a batch on which the model fails, or (unless `nonfinite` is "skip") a NaN or infinity in a
            tensor; names tensor and batch.
    """
    inputs = {one.name for one in model.inputs}
    computed = [name for name in taps.tensors if name not in inputs]
    session = create_session(with_outputs(model, computed or model.outputs), model.external.folder, str(model.path))
    accumulators = {name: TensorAccumulator() for name in taps.tensors}
    data = DataFingerprint()
    with ThreadPoolExecutor(cpu_count()) as pool:
        for batch in track(source, "Calibrating", source.total):
            measured = dict(zip(computed, run_session(session, batch), strict=False))
            measured.update({name: batch.feeds[name] for name in taps.tensors if name in inputs})
            counts = pool.map(
                TensorAccumulator.update, accumulators.values(), (measured[name] for name in taps.tensors)
            )
            found = dict(zip(taps.tensors, counts, strict=True))
            if nonfinite == "refuse":
                _refuse_nonfinite(found, measured, batch, taps)
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


def run_session(session: ort.InferenceSession, batch: Batch) -> list[Array]:
    """All outputs for one batch.

    Raises:
        DataError: the model fails on it; names the batch.
    """
    try:
        return session.run(None, _contiguous(batch.feeds))  # type: ignore[no-any-return]
    except Exception as error:  # ONNX Runtime has no common base for its errors
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{batch.origin}: the model fails on this batch: {reason}") from error


def _contiguous(feeds: Feeds) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array) for name, array in feeds.items()}


def _refuse_nonfinite(found: Mapping[str, int], measured: Feeds, batch: Batch, taps: Taps) -> None:
    for name in taps.tensors:  # in graph order: the first one is where it began
        if found[name]:
            raise DataError(
                f"{batch.origin}: tensor {name!r} has {found[name]} NaN or infinite values of {measured[name].size}: "
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
