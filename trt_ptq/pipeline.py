"""The whole job: from a float model and data to a verified INT8 model and engine. The place to read first."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trt_ptq._internal.files import write_atomic
from trt_ptq.analysis.macs import count_macs
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.convergence import Convergence, all_methods
from trt_ptq.calibration.measurements.magnitudes import float32_tensors, measure_amax
from trt_ptq.calibration.memory_planner import Passes, plan_passes
from trt_ptq.calibration.tensors import CalibrationTensors, select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import save_statistics
from trt_ptq.calibrators.table.table_file import save_table
from trt_ptq.config import QuantizeJob
from trt_ptq.data.audit import Audit, HeldOutAudit
from trt_ptq.data.observation import observe
from trt_ptq.data.shape_profiles import ShapeObserver, profiles_from_shapes
from trt_ptq.data.subset import Head, split_source, two_halves
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.engines.backends import build_engine, check_backend
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec, Precision
from trt_ptq.errors import DataError, EngineError, MissingPackageError, ModelError, TrtPtqError
from trt_ptq.evaluation.compare_engines import MeasuredEngine, measure_engines
from trt_ptq.evaluation.metrics import require_finite
from trt_ptq.evaluation.verdict import judge
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.output import RECIPE, STATISTICS, TRANSFORMED, check_folder, remove_last_run, remove_other_recipe
from trt_ptq.qdq.plan import QuantizationPlan, int8_fraction, plan_quantization
from trt_ptq.recipe import save_recipe
from trt_ptq.report.render import render_html
from trt_ptq.report.rows import model_rows, tensor_rows
from trt_ptq.report.schema import Report, write_report
from trt_ptq.report.warnings import (
    NO_INT8_NODES,
    OPTIMISTIC_VERDICT,
    TUNING_SKIPPED,
    fp32_warnings,
    range_warnings,
    stability_method_warnings,
    stability_warnings,
    technique_warnings,
)
from trt_ptq.tuning.builder import CalibratedModel, CandidateBuilder
from trt_ptq.tuning.objective import Objective
from trt_ptq.tuning.precisions import evaluate_precisions
from trt_ptq.tuning.tuner import tune
from trt_ptq.types import BatchSource, ShapeProfile
from trt_ptq.version import __version__


@dataclass(frozen=True)
class QuantizeResult:
    """The report, and why an engine is missing: `engine_error` if a builder refused the model, or one that was
    asked for by name is not installed."""

    report: Report
    engine_error: TrtPtqError | None


def quantize(job: QuantizeJob) -> QuantizeResult:
    """Measure, decide, convert, judge, build; leaves every result in `job.out`.

    Raises:
        TrtPtqError: bad input, before or while it is used; what was finished by then stays.
    """
    check_backend(job.backend)
    plan_quantization(
        job.model.to_ir().graph, nodes_to_exclude=job.nodes_to_exclude, attention=job.attention
    )  # knows all names
    check_folder(job.out, job.model.path, job.model.external.files)
    with tempfile.TemporaryDirectory(prefix="trt-ptq-") as scratch:
        return _quantize(job, Path(scratch))


def _quantize(job: QuantizeJob, scratch: Path) -> QuantizeResult:
    calibration, held_out = (_checked(job, part) for part in split_source(job.source, job.test))
    searching, judging = (held_out, held_out) if job.evaluate else two_halves(held_out)
    referee = Objective(job.model.path, searching, job.evaluate, job.eval_name)
    audit, shapes = Audit(), ShapeObserver()
    audited, held_out_audit = observe(calibration, audit, shapes), HeldOutAudit(audit)
    calibration_tensors, passes = _plan(job, job.model, audited)
    _ = referee.baseline  # a metric that fails does so here, not after the calibration
    convergence = Convergence(all_methods(job.method), job.until_stable)
    statistics = collect_statistics(
        job.model,
        audited,
        calibration_tensors,
        job.nonfinite,
        job.progress,
        passes,
        device=job.device,
        convergence=convergence,
    )
    save_statistics(statistics, job.out / STATISTICS)
    profiles = job.profiles or profiles_from_shapes(shapes.seen, job.model.inputs)
    remove_last_run(job.out)
    remove_other_recipe(job.out, job.recipe)
    stability = None if job.until_stable is None else convergence.stability()
    warnings = audit.findings() + stability_warnings(stability, job.model.inputs, bool(job.profiles))

    candidates = CandidateBuilder(
        CalibratedModel(job.model, statistics),
        calibration,
        calibrate=partial(_calibrate_again, job, Head(calibration, statistics.data.samples)),
        magnitudes=partial(_magnitudes, job, calibration),
        folder=scratch,
        progress=job.progress,
    )
    improved = tune(
        job.recipe,
        candidates,
        referee,
        job.max_drop,
        methods=(job.method, *job.alternatives) if job.alternatives else (),
        repair=job.repair,
        search=job.search,
        tell=job.tell,
    )
    recipe, table, calibrated_model = (
        improved.recipe,
        candidates.table(improved.recipe),
        candidates.calibrated_model(improved.recipe),
    )
    save_recipe(recipe, job.out / RECIPE)
    if calibrated_model.model is not job.model:
        save_model(calibrated_model.model.to_ir(), job.out / TRANSFORMED)
        save_statistics(calibrated_model.statistics, job.out / STATISTICS)
    save_table(table, job.out / "calibration.cache")
    save_table(table, job.out / "calibration.json")
    warnings += stability_method_warnings(stability, recipe.method)
    warnings += technique_warnings(recipe, calibrated_model.model is not job.model)
    warnings += range_warnings(calibrated_model.statistics, table, recipe.method)
    require_finite(improved.metrics, job.eval_name, job.out / "model.int8.onnx")

    files: dict[Precision, Path] = {"fp32": job.model.path, "int8": job.out / "model.int8.onnx"}
    made = candidates.make(recipe)
    warnings += [*filter(None, [made.warning]), *fp32_warnings(made.fp32_nodes)]
    if not any(one.is_int8 for one in made.qdq.nodes):
        warnings.append(NO_INT8_NODES)
    warnings += [f"{one.op_type} {one.output!r} is left alone: {one.reason}" for one in made.qdq.plan.unsupported]
    save_model(made.qdq.model, files["int8"])
    files["fp16"] = job.out / "model.fp16.onnx"
    save_model(to_float16(job.model, candidates.amax(job.recipe.model_copy(update={"techniques": ()}))), files["fp16"])

    verdict_on = observe(judging if improved.searched else held_out, held_out_audit)
    judged = evaluate_precisions(files, verdict_on, referee, improved.metrics, job.progress)
    warnings += [*improved.warnings, *held_out_audit.findings(), *judged.warnings]
    if improved.searched and searching is judging:
        warnings.append(OPTIMISTIC_VERDICT)
    verdict = judge(judged.losses, job.max_drop)
    if not verdict.passed and not improved.searched and not improved.warnings and job.search:
        warnings.append(TUNING_SKIPPED)
    engines, engine_error = _build(job, judged.runnable, profiles, warnings)
    measured = _measure_engines(job, engines, held_out, warnings)
    report = Report(
        tool=f"trt_ptq {__version__}",
        model=str(job.model.path),
        identity=job.model.identity,
        data=job.data_name,
        fingerprint=calibrated_model.statistics.data,
        passes=len(passes),
        trajectory=convergence.trajectory(),
        stability=stability,
        held_out_samples=judged.comparisons["int8"].samples,
        method=recipe.method,
        tensors=tensor_rows(calibrated_model.statistics, table),
        nodes=list(made.qdq.nodes),
        int8_fraction_of_macs=_share_in_int8(job, made.qdq.plan, profiles, warnings),
        high_precision=made.high_precision,
        fp32_nodes=list(made.fp32_nodes),
        trials=list(improved.trials),
        models=model_rows(files, judged),
        engines=engines,
        engine_measurements=measured,
        verdict=verdict,
        warnings=warnings,
    )
    write_report(report, job.out / "report.json")
    write_atomic(job.out / "report.html", render_html(report))
    return QuantizeResult(report, engine_error)


def _plan(job: QuantizeJob, model: Model, source: BatchSource) -> tuple[CalibrationTensors, Passes]:
    """What is tapped of a float model, and in which passes."""
    calibration_tensors = select_calibration_tensors(model, job.tensors, job.attention)
    return calibration_tensors, plan_passes(
        model, calibration_tensors, source, job.memory_limit
    ) if job.memory_limit else (calibration_tensors.tensors,)


def _calibrate_again(job: QuantizeJob, source: BatchSource, model: Model) -> Statistics:
    """The statistics of a float model that repairs have changed."""
    calibration_tensors, passes = _plan(job, model, source)
    return collect_statistics(
        model, source, calibration_tensors, job.nonfinite, job.progress, passes, device=job.device
    )


def _magnitudes(job: QuantizeJob, calibration: BatchSource, model: Model) -> dict[str, float]:
    """Of the float model, or one that repairs have changed, within the memory limit."""
    tensors = float32_tensors(model)
    passes = plan_passes(model, tensors, calibration, job.memory_limit) if job.memory_limit else ()
    return measure_amax(model, calibration, passes)


def _checked(job: QuantizeJob, source: BatchSource) -> BatchSource:
    return ValidatedSource(source, job.model.inputs, allow_nonfinite=job.nonfinite == "skip")


def _share_in_int8(
    job: QuantizeJob, plan: QuantizationPlan, profiles: dict[str, ShapeProfile], warnings: list[str]
) -> float | None:
    """How much of the arithmetic runs in INT8, at the shapes the engine is tuned for; None, and told, if unknown."""
    try:
        macs = count_macs(job.model, {name: profile.optimum for name, profile in profiles.items()})
    except ModelError as error:
        warnings.append(str(error))
        return None
    return int8_fraction(plan, macs)


def _build(
    job: QuantizeJob, files: dict[Precision, Path], profiles: dict[str, ShapeProfile], warnings: list[str]
) -> tuple[list[EngineManifest], TrtPtqError | None]:
    """FP16 and INT8 engines. What hinders a builder does not undo the rest: it is told, and returned."""
    built = []
    for precision in ("fp16", "int8"):
        if precision not in files:
            continue
        spec = EngineSpec(
            onnx=files[precision],
            engine=_engine_path(job, precision),
            precision=precision,
            source=job.model.identity,
            profiles=profiles,
        )
        try:
            built.append(build_engine(spec, job.backend))
        except MissingPackageError as error:
            warnings.append(f"no engine was built: {error}")
            return built, None if job.backend == "auto" else error
        except EngineError as error:
            warnings.append(f"no {precision} engine was built: {error}")
            return built, error
    return built, None


def _engine_path(job: QuantizeJob, precision: str) -> Path:
    return job.out / f"model.{precision}.engine"


def _measure_engines(
    job: QuantizeJob, engines: list[EngineManifest], held_out: BatchSource, warnings: list[str]
) -> list[MeasuredEngine]:
    """Latency, layers and fidelity of what TensorRT built here; empty without a GPU. A failure is told, no more."""
    built: dict[Precision, Path] = {
        one.precision: _engine_path(job, one.precision) for one in engines if one.backend == "tensorrt"
    }
    if not built:
        return []
    try:
        return measure_engines(built, held_out, job.progress)
    except (DataError, EngineError, MissingPackageError) as error:
        warnings.append(f"the engines were built, but not measured: {error}")
        return []
