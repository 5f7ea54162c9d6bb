"""Report: report.json, report.html, and the result that `quantize` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trt_ptq._internal.files import write_atomic
from trt_ptq.analysis.macs import count_macs
from trt_ptq.errors import ModelError
from trt_ptq.language_models.decoder import is_decoder
from trt_ptq.language_models.length_drift import MOST_SHOWN
from trt_ptq.language_models.outliers import OutlierChannel, find_outliers
from trt_ptq.onnx_io.load import Model
from trt_ptq.output import REPORT, REPORT_PAGE
from trt_ptq.pipeline.calibration_step import Calibrated
from trt_ptq.pipeline.engine_step import Built
from trt_ptq.pipeline.evaluation_step import Evaluated, EvaluatedEngines
from trt_ptq.pipeline.export_step import Exported
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.pipeline.quantize_result import QuantizeResult
from trt_ptq.pipeline.tuning_step import Tuned
from trt_ptq.qdq.plan import NodePlan, QuantizationPlan, int8_fraction
from trt_ptq.report.render import render_html
from trt_ptq.report.rows import engine_rows, model_rows, tensor_rows
from trt_ptq.report.schema import Report, write_report
from trt_ptq.report.warnings import ENGINES_PENDING
from trt_ptq.types import ShapeProfile
from trt_ptq.version import __version__

_FASTER_IN_FP16 = "faster in FP16, by the plan of the builder"


def report_models(
    job: QuantizationJob, calibrated: Calibrated, tuned: Tuned, exported: Exported, evaluated: Evaluated
) -> Report:
    """Write what is known before the engines are built, so that a builder that ends the process takes no result away.

    Raises:
        OutputError: a file cannot be written.
    """
    candidate, statistics = exported.candidate, tuned.calibrated_model.statistics
    fraction, uncounted = _fraction_of_macs(job.model, candidate.qdq.plan, calibrated.profiles)
    steps = (calibrated, tuned, exported, evaluated)
    report = Report(
        tool=f"trt_ptq {__version__}",
        model=job.model_name,
        identity=job.model.identity,
        data=job.data_name,
        fingerprint=statistics.data,
        passes=calibrated.passes or int(statistics.data != calibrated.statistics.data),  # calibrated for a technique
        trajectory=calibrated.trajectory,
        stability=calibrated.stability,
        held_out_samples=evaluated.comparison.fidelity["int8"].samples,
        comparison_samples_calibrated_with=evaluated.calibration_samples,
        metric_function=job.metric_name,
        method=_method(tuned),
        tensors=tensor_rows(statistics, tuned.table, candidate.qdq.plan.activations),
        nodes=[_with_reason(node, tuned) for node in candidate.qdq.nodes],
        int8_fraction_of_macs=fraction,
        kv_cache=tuned.recipe.kv_cache,
        high_precision=candidate.high_precision,
        fp32_nodes=list(candidate.fp32_nodes),
        outliers=list(_outliers(job, tuned)),
        trials=list(tuned.result.trials),
        models=model_rows(exported.files, evaluated.comparison),
        text=None if job.language is None else job.language.audit,
        length_drift=list(calibrated.drift[:MOST_SHOWN]),
        language=evaluated.language,
        engines=[],
        require_speedup=job.require_speedup,
        placement=placement.describe(job.gpu) if (placement := tuned.placed.placement) else "",
        verdict=evaluated.verdict,
        warnings=[*(warning for step in steps for warning in step.warnings), *uncounted],
    )
    pending = [] if job.backend == "none" else [ENGINES_PENDING]
    _write(job, report.model_copy(update={"warnings": [*report.warnings, *pending]}))
    return report


def report_engines(job: QuantizationJob, report: Report, built: Built, evaluated: EvaluatedEngines) -> QuantizeResult:
    """Write the report again, with the engines; the verdict is on them if they were evaluated.

    Raises:
        OutputError: a file cannot be written; the report without engines stays.
    """
    findings = built.speed.findings if built.speed else ()
    complete = report.model_copy(
        update={
            "engines": list(built.engines),
            "engine_measurements": list(built.measured),
            "speed": built.speed,
            "evaluated_engines": engine_rows(job.output_dir, evaluated.comparison) if evaluated.comparison else [],
            "verdict": evaluated.verdict or report.verdict,
            "warnings": [*report.warnings, *built.warnings, *evaluated.warnings, *findings],
        }
    )
    if job.backend != "none":
        _write(job, complete)
    return QuantizeResult(complete, job.output_dir, built.error)


def _outliers(job: QuantizationJob, tuned: Tuned) -> tuple[OutlierChannel, ...]:
    """The outlier channels of a language model, before and after the techniques."""
    if not is_decoder(job.model):
        return ()
    final = tuned.calibrated_model.model
    return find_outliers(job.model, job.calibration, final if final is not job.model else None)


def _method(tuned: Tuned) -> str:
    provenance = tuned.table.provenance
    return provenance.method if provenance else tuned.recipe.method


def _with_reason(node: NodePlan, tuned: Tuned) -> NodePlan:
    return replace(node, reason=_FASTER_IN_FP16) if node.output in tuned.placed.excluded else node


def _write(job: QuantizationJob, report: Report) -> None:
    write_report(report, job.output_dir / REPORT)
    write_atomic(job.output_dir / REPORT_PAGE, render_html(report))


def _fraction_of_macs(
    model: Model, plan: QuantizationPlan, profiles: Mapping[str, ShapeProfile]
) -> tuple[float | None, list[str]]:
    """The fraction of the MACs that runs in INT8, at the shapes that the engine is optimized for; or why not known."""
    try:
        macs = count_macs(model, {name: profile.optimum for name, profile in profiles.items()})
    except ModelError as error:
        return None, [str(error)]
    return int8_fraction(plan, macs), []
