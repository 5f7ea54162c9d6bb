"""Build: FP16 and INT8 engines, and their measurements where there is a GPU.

An INT8 node that the builder has no implementation for is excluded from quantization, and the engine is built again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trt_ptq.api.mended_build import build_without_refused
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec, Precision
from trt_ptq.errors import DataError, EngineError, MissingPackageError, OutputError, TrtPtqError
from trt_ptq.evaluation.compare_engines import MeasuredEngine, measure_engines
from trt_ptq.output import ENGINES
from trt_ptq.pipeline.calibration_step import Calibrated
from trt_ptq.pipeline.export_step import Exported
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.pipeline.speed_step import compare_speed
from trt_ptq.pipeline.tuning_step import Tuned
from trt_ptq.report.warnings import engine_size_warnings, profile_warnings, refused_warning
from trt_ptq.speed.engine_comparison import SpeedComparison

_logger = logging.getLogger(__name__)
_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")


@dataclass(frozen=True)
class Built:
    """The manifests of the `engines`, and what was `measured` of them on a GPU.

    `error` is why the INT8 engine is missing: the builder refused the model, or the disk is full. FP16 is a baseline:
    that its engine is missing is one of the `warnings`. `tuned` leads to the INT8 model that was built: it differs from
    what was tuned where the builder refused nodes. `speed` compares the INT8 with the FP16 engine, if both were built.
    """

    tuned: Tuned
    engines: tuple[EngineManifest, ...] = ()
    measured: tuple[MeasuredEngine, ...] = ()
    error: TrtPtqError | None = None
    warnings: tuple[str, ...] = ()
    speed: SpeedComparison | None = None


def build(job: QuantizationJob, calibrated: Calibrated, tuned: Tuned, exported: Exported) -> Built:
    """Build the engines of the models that were written. A failure is recorded, and does not abort the run."""
    if job.backend == "none":
        return Built(tuned)
    engines: list[EngineManifest] = []
    error: TrtPtqError | None = None
    warnings: list[str] = []
    for precision in filter(exported.files.__contains__, _PRECISIONS):
        spec = EngineSpec(
            onnx=exported.files[precision],
            engine=job.output_dir / ENGINES[precision],
            precision=precision,
            source=job.model.identity,
            profiles=calibrated.profiles,
            target=tuned.recipe.target if precision == "int8" else None,
        )
        _logger.info("building the %s engine", precision.upper())
        try:
            if precision == "int8":
                engines.append(_build_int8(spec, job, tuned, exported))
            else:
                engines.append(build_engine(spec, job.backend))
        except MissingPackageError as missing:
            warnings.append(f"no engine was built: {missing}")
            break
        except (EngineError, OutputError) as refused:
            warnings.append(f"no {precision} engine was built: {refused}")
            error = refused if precision == "int8" else None
    excluded = [node for engine in engines for node in engine.refused_nodes]
    if excluded:
        warnings.append(refused_warning(excluded))
        tuned = _excluding(tuned, excluded)
    measured, failures = _measure(job, engines)
    limits = profile_warnings(calibrated.profiles, job.model.inputs) if engines and not job.profiles else []
    speed, unknown = compare_speed(job.output_dir, engines, measured, job.gpu)
    sizes = engine_size_warnings(engines) if speed is None else []
    return Built(tuned, tuple(engines), measured, error, (*warnings, *limits, *sizes, *failures, *unknown), speed)


def _build_int8(spec: EngineSpec, job: QuantizationJob, tuned: Tuned, exported: Exported) -> EngineManifest:
    return build_without_refused(
        spec,
        exported.candidate.qdq,
        lambda spec: build_engine(spec, job.backend),
        lambda refused: tuned.candidates.build(_excluding(tuned, refused).recipe).qdq,
    )


def _excluding(tuned: Tuned, refused: Sequence[str]) -> Tuned:
    """`tuned` with further nodes excluded; the metrics of its model are not known yet."""
    excluded = (*tuned.recipe.nodes_to_exclude, *refused)
    recipe = tuned.recipe.model_copy(update={"nodes_to_exclude": excluded})
    return replace(tuned, result=replace(tuned.result, recipe=recipe, metrics={}))


def _measure(job: QuantizationJob, engines: list[EngineManifest]) -> tuple[tuple[MeasuredEngine, ...], list[str]]:
    """Latency, layers and fidelity of what was built on a GPU, none without one; and what went wrong."""
    built = {
        engine.precision: job.output_dir / ENGINES[engine.precision] for engine in engines if engine.gpu is not None
    }
    if not built:
        return (), []
    try:
        return tuple(measure_engines(built, job.held_out, job.progress)), []
    except (DataError, EngineError, MissingPackageError) as error:
        return (), [f"the engines were built, but not measured: {error}"]
