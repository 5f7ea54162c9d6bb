"""Engines on the GPU: fidelity to each other (of TensorRT's by Polygraphy's comparator), latency, layers."""

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

from trt_ptq.engines.manifest import manifest_path, read_manifest
from trt_ptq.engines.running.benchmark import Benchmark, benchmark
from trt_ptq.engines.running.loader import engine_backend, load_engine
from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import DataError, EngineError
from trt_ptq.evaluation.compare_models import ModelFidelity, compare_models
from trt_ptq.evaluation.fidelity import FidelityMeter, OutputFidelity
from trt_ptq.types import BatchSource, ProgressCallback, contiguous, no_progress, sample_count


@dataclass(frozen=True)
class MeasuredEngine:
    """One engine that ran on a GPU.

    Attributes:
        benchmark: its latency.
        layers: number of layers that compute, by precision.
        reformats: number of layers that only convert between formats.
        fidelity: fidelity to the FP16 engine by output; empty for that engine, or where there is none.
    """

    benchmark: Benchmark
    layers: dict[str, int]
    reformats: int
    fidelity: dict[str, OutputFidelity]


def measure_engines(
    engines: Mapping[Precision, Path], source: BatchSource, progress: ProgressCallback = no_progress
) -> list[MeasuredEngine]:
    """Run engines of one model: latency on the first batch, fidelity on all batches.

    Args:
        engines: engine files by precision.
        source: the batches.
        progress: shows progress over the batches.

    Raises:
        EngineError: an engine cannot be loaded or run.
        DataError: there are no batches, or an engine fails on one.
    """
    first = next(iter(source), None)
    if first is None:
        raise DataError("there are no batches to measure engines on")
    measured = []
    for precision, path in engines.items():
        with EngineSession(path) as session:
            latency, inspection = benchmark(session, first.feeds), session.inspect()
        reference = engines.get("fp16") if precision != "fp16" else None
        fidelity = compare_engines(reference, path, source, progress).outputs if reference else {}
        measured.append(MeasuredEngine(latency, inspection.precisions(), len(inspection.reformats), fidelity))
    return measured


def compare_engines(
    reference: Path, candidate: Path, source: BatchSource, progress: ProgressCallback = no_progress
) -> ModelFidelity:
    """Measure the fidelity of an engine to another one, on the GPU, a batch at a time.

    Polygraphy runs and compares engines of TensorRT. It does not know TensorRT for RTX, nor the scales of an INT8
    cache: such engines run here.

    Args:
        reference: the engine file to compare with.
        candidate: the engine file to compare.
        source: the batches.
        progress: shows progress over the batches.

    Raises:
        EngineError, ModelError: an engine cannot be loaded (see `load_engine`), or their outputs differ.
        DataError: there are no batches, or an engine fails on one.
    """
    from polygraphy.backend.trt import TrtRunner

    paths = (reference, candidate)
    if "tensorrt-rtx" in map(engine_backend, paths) or any(map(_has_int8_io, paths)):
        return compare_models(reference, candidate, source, progress)
    engines = [load_engine(path) for path in paths]
    runners = [TrtRunner(engine.engine, name=str(engine.path)) for engine in engines]
    return compare_runners(runners, source, progress)


def _has_int8_io(engine: Path) -> bool:
    return manifest_path(engine).exists() and bool(read_manifest(engine).int8_io)


def compare_runners(
    runners: Sequence[Any], source: BatchSource, progress: ProgressCallback = no_progress
) -> ModelFidelity:
    """Measure the fidelity of the second of two Polygraphy runners to the first.

    Polygraphy's comparator keeps all outputs in memory, so it gets one batch at a time. There is no top-1 agreement:
    runners do not say which outputs hold scores.

    Raises:
        EngineError: the runners differ in their outputs or the shapes of these.
        DataError: there are no batches, or a runner fails on one; names it.
    """
    G_LOGGER.module_severity = G_LOGGER.ERROR
    candidate = Path(runners[1].name)
    meters: dict[str, FidelityMeter] = {}
    samples = 0
    for batch in progress(source, "Comparing engines", source.total):
        feeds = contiguous(batch.feeds)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # Polygraphy logs errors to stdout
                results = Comparator.run(list(runners), data_loader=[feeds])
        except Exception as error:  # TensorRT and Polygraphy have no common base for their errors
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise DataError(f"{batch.origin}: cannot be compared on: {reason}") from error
        expected_outputs, actual_outputs = (iterations[0] for _, iterations in results.items())
        if expected_outputs.keys() != actual_outputs.keys():
            raise EngineError(f"{candidate}: other outputs than {runners[0].name}: build both from the same model")
        for name in expected_outputs:
            expected, actual = np.asarray(expected_outputs[name]), np.asarray(actual_outputs[name])
            if expected.shape != actual.shape:
                raise EngineError(
                    f"{candidate}: output {name!r} has shape {list(actual.shape)}, that of {runners[0].name} "
                    f"{list(expected.shape)}"
                )
            meters.setdefault(name, FidelityMeter()).update(expected, actual)
        samples += sample_count(feeds)
    if not samples:
        raise DataError("there are no batches to compare on")
    return ModelFidelity(candidate.name, samples, {name: meter.result() for name, meter in meters.items()})
