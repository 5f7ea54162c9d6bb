"""Tune: the recipe that meets the accuracy threshold, and the trials behind it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.data.subset import Head
from trt_ptq.pipeline.calibration_step import Calibrated, magnitudes, recalibrate
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.recipe import Recipe
from trt_ptq.report.warnings import stability_method_warnings, technique_warnings
from trt_ptq.tuning.candidate_builder import CalibratedModel, CandidateBuilder
from trt_ptq.tuning.trials import TuningResult
from trt_ptq.tuning.tuner import tune


@dataclass(frozen=True)
class Tuned:
    """The recipe, the calibrated model and the table it leads to, and `candidates`, which builds its model."""

    result: TuningResult
    calibrated_model: CalibratedModel
    table: CalibrationTable
    candidates: CandidateBuilder
    warnings: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        return self.result.recipe


def tune_recipe(job: QuantizationJob, calibrated: Calibrated, scratch: Path) -> Tuned:
    """Find a recipe whose INT8 model meets the accuracy threshold; see `tune`. Transformed models go to `scratch`.

    Raises:
        DataError, ModelError, TableError: see `tune`.
    """
    calibrated_with = Head(calibrated.source, calibrated.statistics.data.samples)
    candidates = CandidateBuilder(
        CalibratedModel(job.model, calibrated.statistics),
        job.objective.reference,
        job.calibration,
        calibrate=partial(recalibrate, job, calibrated_with),
        magnitudes=partial(magnitudes, job),
        folder=scratch,
        progress=job.progress,
    )
    result = tune(
        job.recipe,
        candidates,
        job.objective,
        job.max_drop,
        methods=job.methods if len(job.methods) > 1 else (),
        try_techniques=job.try_techniques,
        search=job.search,
        mode=job.mode,
    )
    table, calibrated_model = candidates.table(result.recipe), candidates.calibrated_model(result.recipe)
    warnings = (
        *stability_method_warnings(calibrated.stability, result.recipe.method),
        *technique_warnings(result.recipe, calibrated_model.model is not job.model),
        *result.warnings,
    )
    return Tuned(result, calibrated_model, table, candidates, warnings)
