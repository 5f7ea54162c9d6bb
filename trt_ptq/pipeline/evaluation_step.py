"""Evaluate: fidelity to FP32, the user's metrics, and the verdict; on the engines, where they can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trt_ptq.data.checks.audit import HeldOutAudit
from trt_ptq.data.observation import observe
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import DataError, EngineError, MissingPackageError, ModelError
from trt_ptq.evaluation.metrics import Metrics
from trt_ptq.evaluation.precisions import PrecisionComparison, evaluate_precisions
from trt_ptq.evaluation.verdict import Verdict, format_loss
from trt_ptq.language_models.judging.judgement import LanguageJudge, LanguageJudgement, perplexity_warnings
from trt_ptq.language_models.judging.metric import PERPLEXITY
from trt_ptq.output import ENGINES
from trt_ptq.pipeline.calibration_step import Calibrated
from trt_ptq.pipeline.export_step import Exported
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.pipeline.tuning_step import Tuned
from trt_ptq.report.warnings import (
    JUDGED_BY_FP32,
    SELECTION_PASSED,
    TUNING_SKIPPED,
    emulation_differs,
    engines_not_evaluated,
    more_data,
    optimistic_verdict,
)
from trt_ptq.types import BatchSource


@dataclass(frozen=True)
class Evaluated:
    """How the FP16 and INT8 models compare with FP32, and whether INT8 meets the accuracy threshold.

    `calibration_samples` counts the samples of the comparison that were also used for calibration. `language` compares
    what language models predict; None for other models.
    """

    comparison: PrecisionComparison
    verdict: Verdict
    calibration_samples: int
    language: LanguageJudgement | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class EvaluatedEngines:
    """How the FP16 and INT8 engines compare with FP32 in ONNX Runtime; `verdict` is on the INT8 engine.

    Both are None where the engines cannot run; `warnings` says why, if they should.
    """

    comparison: PrecisionComparison | None = None
    verdict: Verdict | None = None
    warnings: tuple[str, ...] = ()


def evaluate_models(
    job: QuantizationJob,
    calibrated: Calibrated,
    tuned: Tuned,
    exported: Exported,
    earlier_metrics: Mapping[Precision, Metrics] | None = None,
) -> Evaluated:
    """Compare the exported models with FP32: on data that nothing was selected on, where there is such data.

    `earlier_metrics` are those of the last call, if only the INT8 model has changed since.

    Raises:
        DataError, ModelError: see `evaluate_precisions`.
    """
    searched = tuned.result.searched
    audit = HeldOutAudit(calibrated.audit)
    source = observe(_compared(job, searched), audit)
    if earlier_metrics is None:
        was_scored = exported.candidate.high_precision == "fp32"  # as the rest of all candidates is
        known = job.objective.metrics_for_verdict(tuned.result.metrics if was_scored else None)
    else:
        known = {precision: metrics for precision, metrics in earlier_metrics.items() if precision != "int8"}
    reference = job.objective.reference
    judge = None if job.language is None else LanguageJudge(reference, job.language)
    comparison = evaluate_precisions(
        exported.files, source, job.objective.metric, known, job.progress, reference, judge.look if judge else None
    )
    verdict = comparison.grade(job.max_drop)
    warnings = [*audit.findings(), *comparison.warnings, *verdict.warnings()]
    metric = job.objective.metric
    by_perplexity = metric is not None and metric.name == PERPLEXITY
    own_data = metric is not None and not by_perplexity and not job.scores_held_out
    if searched and job.selects_on_test:
        warnings.append(optimistic_verdict(own_data))
    if not verdict.passed and not searched and not tuned.result.warnings and job.search:
        warnings.append(TUNING_SKIPPED.format(more_data(own_data)))
    if not verdict.passed and searched and tuned.result.loss <= job.max_drop:
        warnings.append(SELECTION_PASSED.format(format_loss(tuned.result.loss, job.max_drop), more_data(own_data)))
    if metric is not None and job.scores_held_out:
        warnings.append(JUDGED_BY_FP32)
    if job.language is not None and by_perplexity:
        warnings += perplexity_warnings(comparison.metrics, job.language)
    judgement = None if judge is None else judge.judgement()
    return Evaluated(comparison, verdict, audit.num_calibrated, judgement, tuple(warnings))


def evaluate_engines(
    job: QuantizationJob, tuned: Tuned, evaluated: Evaluated, engines: Sequence[EngineManifest]
) -> EvaluatedEngines:
    """Compare the engines with FP32 on the data of `evaluate_models`: what they compute, not its emulation, decides.

    Args:
        job: the job.
        tuned: what the engines were built from.
        evaluated: the comparison of the ONNX models.
        engines: manifests of the engines in the output directory.
    """
    built = {engine.precision for engine in engines if engine.gpu is not None}
    if "int8" not in built:
        return EvaluatedEngines()
    files: dict[Precision, Path] = {
        "fp32": job.model_file,
        **{precision: job.output_dir / ENGINES[precision] for precision in built},
    }
    source = _compared(job, tuned.result.searched)
    metrics = evaluated.comparison.metrics
    known: dict[Precision, Metrics] = {"fp32": metrics["fp32"]} if metrics else {}
    try:
        comparison = evaluate_precisions(
            files, source, job.objective.metric, known, job.progress, job.objective.reference
        )
        verdict = comparison.grade(job.max_drop)
    except (DataError, EngineError, MissingPackageError, ModelError) as error:
        return EvaluatedEngines(warnings=(engines_not_evaluated(error),))
    known_warnings = evaluated.comparison.warnings
    warnings = [f"on the engines: {warning}" for warning in comparison.warnings if warning not in known_warnings]
    if (verdict.grade, verdict.passed) != (evaluated.verdict.grade, evaluated.verdict.passed):
        warnings.append(emulation_differs(evaluated.verdict))
    return EvaluatedEngines(comparison, verdict, tuple(warnings))


def _compared(job: QuantizationJob, searched: bool) -> BatchSource:
    """The batches whose outputs are compared with FP32: those that nothing was selected on, where there are such."""
    return job.test if searched else job.held_out
