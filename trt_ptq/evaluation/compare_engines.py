"""Engines judged on the GPU that runs them: against each other by Polygraphy's comparator, latency, layers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.comparator import Comparator
from polygraphy.logger import G_LOGGER

from trt_ptq.engines.running.benchmark import Benchmark, benchmark
from trt_ptq.engines.running.loader import load_engine
from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import DataError, EngineError
from trt_ptq.evaluation.compare_models import Comparison
from trt_ptq.evaluation.fidelity import FidelityMeter, OutputFidelity
from trt_ptq.types import BatchSource, ProgressCallback, TensorSpec, no_progress, sample_count


@dataclass(frozen=True)
class MeasuredEngine:
    """One engine that was run: `layers` counts those that compute, by precision; `reformats` those that only convert.

    `fidelity` is to the FP16 engine, by output; empty for that one, or where there is none.
    """

    benchmark: Benchmark
    layers: dict[str, int]
    reformats: int
    fidelity: dict[str, OutputFidelity]


def measure_engines(
    engines: Mapping[Precision, Path], source: BatchSource, progress: ProgressCallback = no_progress
) -> list[MeasuredEngine]:
    """Run TensorRT engines of one model: latency on the first batch, fidelity over all.

    Raises:
        EngineError: an engine cannot be loaded or run.
        DataError: no batches, or an engine fails on one.
    """
    first = next(iter(source), None)
    if first is None:
        raise DataError("there are no batches to measure engines on")
    measured = []
    for precision, path in engines.items():
        with EngineSession(path) as session:
            timed, inspection = benchmark(session, first.feeds), session.inspect()
        against = engines.get("fp16") if precision != "fp16" else None
        fidelity = compare_engines(against, path, source, progress).outputs if against else {}
        measured.append(MeasuredEngine(timed, inspection.precisions(), len(inspection.reformats), fidelity))
    return measured


def engine_inputs(path: Path) -> tuple[TensorSpec, ...]:
    """The inputs of an engine.

    Raises:
        EngineError, MissingPackageError: see `load_engine`.
    """
    session = EngineSession(path)
    shapes = {name: tuple(session.engine.get_tensor_shape(name)) for name in session.inputs}
    return tuple(
        TensorSpec(name, session.dtypes[name], tuple("?" if size == -1 else size for size in shape))
        for name, shape in shapes.items()
    )


def compare_engines(
    reference: Path, candidate: Path, source: BatchSource, progress: ProgressCallback = no_progress
) -> Comparison:
    """Fidelity of engine `candidate` to engine `reference` (both of TensorRT) on the GPU, a batch at a time.

    Raises:
        EngineError: an engine cannot be loaded (see `load_engine`), is one of TensorRT-RTX, or their outputs differ.
        DataError: no batches, or an engine fails on one.
    """
    from polygraphy.backend.trt import TrtRunner

    loaded = [load_engine(path) for path in (reference, candidate)]
    for one in loaded:
        if one.library.name != "tensorrt":
            raise EngineError(f"{one.path}: engines of {one.library.title} are not compared: build with --backend trt")
    runners = [TrtRunner(one.engine, name=str(one.path)) for one in loaded]
    return compare_runners(runners, source, progress)


def compare_runners(
    runners: Sequence[Any], source: BatchSource, progress: ProgressCallback = no_progress
) -> Comparison:
    """Fidelity of the second of two Polygraphy runners to the first.

    The comparator keeps all outputs of what it is given, so it is given one batch at a time.

    Raises:
        EngineError: the runners differ in their outputs or their shapes.
        DataError: no batches, or a runner fails on one; names it.
    """
    G_LOGGER.module_severity = G_LOGGER.ERROR
    candidate = Path(runners[1].name)
    meters: dict[str, FidelityMeter] = {}
    samples = 0
    for batch in progress(source, "Comparing engines", source.total):
        feeds = {name: np.ascontiguousarray(array) for name, array in batch.feeds.items()}
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # Polygraphy logs errors to stdout
                results = Comparator.run(list(runners), data_loader=[feeds])
        except Exception as error:  # TensorRT and Polygraphy have no common base for their errors
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise DataError(f"{batch.origin}: cannot be compared on: {reason}") from error
        wanted, got = (iterations[0] for _, iterations in results.items())
        if wanted.keys() != got.keys():
            raise EngineError(f"{candidate}: other outputs than {runners[0].name}: build both from the same model")
        for name in wanted:
            expected, found = np.asarray(wanted[name]), np.asarray(got[name])
            if expected.shape != found.shape:
                raise EngineError(
                    f"{candidate}: output {name!r} has shape {list(found.shape)}, that of {runners[0].name} "
                    f"{list(expected.shape)}"
                )
            meters.setdefault(name, FidelityMeter()).update(expected, found)
        samples += sample_count(feeds)
    if not samples:
        raise DataError("there are no batches to compare on")
    return Comparison(candidate.name, samples, {name: meter.result() for name, meter in meters.items()})
