"""Tune: the recipe that meets the accuracy threshold, and the trials behind it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.data.subset import Head, evenly_spaced
from trt_ptq.onnx_io.ort_session import tools
from trt_ptq.output import STATISTICS, TRIALS
from trt_ptq.pipeline.calibration_step import Calibrated, magnitudes, recalibrate
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.pipeline.placement_step import Placed
from trt_ptq.provenance import DataFingerprint
from trt_ptq.recipe import Recipe
from trt_ptq.report.warnings import stability_method_warnings
from trt_ptq.tuning.candidates.calibrated_models import CalibratedModel, CalibratedModels, CalibrationData
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.tuning.estimating.estimates import Estimates
from trt_ptq.tuning.estimating.few_samples import FewSamples, few_samples
from trt_ptq.tuning.estimating.output_deviation import OutputDeviation
from trt_ptq.tuning.judge import Judge
from trt_ptq.tuning.kept_trials import KeptTrials
from trt_ptq.tuning.trials import TuningResult
from trt_ptq.tuning.tuner import tune
from trt_ptq.types import Batch

_logger = logging.getLogger("trt_ptq.tuning")


@dataclass(frozen=True)
class Tuned:
    """The recipe, the calibrated model and the table it leads to, and `candidates`, which builds its model."""

    result: TuningResult
    calibrated_model: CalibratedModel
    table: CalibrationTable
    candidates: CandidateBuilder
    warnings: tuple[str, ...]
    placed: Placed

    @property
    def recipe(self) -> Recipe:
        return self.result.recipe


def candidate_builder(job: QuantizationJob, calibrated: Calibrated, scratch: Path) -> CandidateBuilder:
    """What builds the INT8 models of recipes. Transformed models go to `scratch`."""
    few = few_samples(job.model, job.objective.reference, job.calibration, job.tuning)
    data = CalibrationData(Head(calibrated.source, calibrated.data.samples), few)
    plain = CalibratedModel(job.model, calibrated.statistics)
    again = partial(recalibrate, job, of_same_data=calibrated.data == calibrated.statistics.data)
    models = CalibratedModels(plain, data, again, scratch, job.nonfinite, job.memory_limit)
    return CandidateBuilder(models, data, partial(magnitudes, job))


def tune_recipe(job: QuantizationJob, calibrated: Calibrated, candidates: CandidateBuilder, placed: Placed) -> Tuned:
    """Find a recipe whose INT8 model meets the accuracy threshold, from that of `placed` on; see `tune`.

    Raises:
        DataError, ModelError, TableError: see `tune`.
        OutputError: the trials cannot be kept in the output directory.
    """
    kept, settings = _kept_trials(job, calibrated, candidates.data.few), job.tuning
    deviation = OutputDeviation(
        job.model, job.objective.reference, candidates.data.few, job.calibration, settings.output_error_batches
    )
    result = tune(
        placed.recipe,
        candidates,
        Estimates(candidates, deviation, kept, job.progress, settings, placed.seconds_saved),
        Judge(candidates, job.objective, kept, job.time_limit),
        job.max_drop,
        methods=job.methods if len(job.methods) > 1 else (),
        by_default=job.by_default,
        try_techniques=job.try_techniques,
        search=job.search,
        mode=job.mode,
        settings=settings,
    )
    table, calibrated_model = candidates.table(result.recipe), candidates.calibrated_model(result.recipe)
    warnings = (
        *stability_method_warnings(calibrated.stability, result.recipe.method_names),
        *placed.warnings,
        *result.warnings,
    )
    return Tuned(result, calibrated_model, table, candidates, warnings, placed)


def _kept_trials(job: QuantizationJob, calibrated: Calibrated, few: FewSamples) -> KeptTrials:
    """The trials of an earlier run with the same model, data, metric and options; none if they cannot be told apart."""
    metric, file = job.objective.metric, job.output_dir / TRIALS
    if metric is not None and metric.identity is None:
        _logger.info("trials are not kept for another run: %s is not a function of a Python file", metric.name)
        file.unlink(missing_ok=True)
        return KeptTrials()
    settings = job.tuning
    measured_on = (
        *(settings.output_error_batches, settings.output_error_samples),
        *(settings.first_look_samples, settings.first_look_batches),
        *(settings.min_ranking_agreement, settings.ranked_further),
    )
    scored_by = [
        _digests(job.objective.source) if job.scores_held_out else [],
        metric and metric.identity,
        job.objective.baseline,
    ]
    parts = [
        tools(),
        asdict(job.model.identity),
        hashlib.sha256((job.output_dir / STATISTICS).read_bytes()).hexdigest(),
        (calibrated.data.samples, calibrated.data.digest),
        [_digests(batches or ()) for batches in (few.first, few.rest)],
        _digests(evenly_spaced(job.calibration, settings.output_error_batches)),
        measured_on,
        scored_by,
    ]
    return KeptTrials(file, hashlib.sha256(repr(parts).encode()).hexdigest())


def _digests(batches: Iterable[Batch]) -> list[str]:
    """What tells these batches from others, batch by batch: another order or batch size counts as well."""
    return [DataFingerprint.from_feeds(batch.feeds).digest for batch in batches]
