"""Build: FP16 and INT8 engines, and their measurements where there is a GPU."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec, Precision
from trt_ptq.errors import DataError, EngineError, MissingPackageError, OutputError, TrtPtqError
from trt_ptq.evaluation.compare_engines import MeasuredEngine, measure_engines
from trt_ptq.output import ENGINES
from trt_ptq.pipeline.calibration_step import Calibrated
from trt_ptq.pipeline.export_step import Exported
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.report.warnings import engine_size_warnings, profile_warnings

_logger = logging.getLogger(__name__)
_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")


@dataclass(frozen=True)
class Built:
    """The manifests of the `engines`, and what was `measured` of them on a GPU.

    `error` is why the INT8 engine is missing: the builder refused the model, or the disk is full. FP16 is a baseline:
    that its engine is missing is one of the `warnings`.
    """

    engines: tuple[EngineManifest, ...] = ()
    measured: tuple[MeasuredEngine, ...] = ()
    error: TrtPtqError | None = None
    warnings: tuple[str, ...] = ()


def build(job: QuantizationJob, calibrated: Calibrated, exported: Exported) -> Built:
    """Build the engines of the models that were written. A failure is recorded, and does not abort the run."""
    if job.backend == "none":
        return Built()
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
        )
        _logger.info("building the %s engine", precision.upper())
        try:
            engines.append(build_engine(spec, job.backend))
        except MissingPackageError as missing:
            warnings.append(f"no engine was built: {missing}")
            break
        except (EngineError, OutputError) as refused:
            warnings.append(f"no {precision} engine was built: {refused}")
            error = refused if precision == "int8" else None
    measured, failures = _measure(job, engines)
    limits = profile_warnings(calibrated.profiles, job.model.inputs) if engines and not job.profiles else []
    return Built(tuple(engines), measured, error, (*warnings, *limits, *engine_size_warnings(engines), *failures))


def _measure(job: QuantizationJob, engines: list[EngineManifest]) -> tuple[tuple[MeasuredEngine, ...], list[str]]:
    """Latency, layers and fidelity of what TensorRT built here, none without a GPU; and what went wrong."""
    built = {
        engine.precision: job.output_dir / ENGINES[engine.precision]
        for engine in engines
        if engine.backend == "tensorrt"
    }
    if not built:
        return (), []
    try:
        return tuple(measure_engines(built, job.held_out, job.progress)), []
    except (DataError, EngineError, MissingPackageError) as error:
        return (), [f"the engines were built, but not measured: {error}"]
