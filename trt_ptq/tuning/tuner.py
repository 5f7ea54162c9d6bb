"""Accuracy-driven tuning: recovery techniques, other range methods, then the most sensitive layers are excluded."""

from __future__ import annotations

from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.choices import Mode, Technique
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.best_so_far import BestSoFar
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.tuning.estimating.estimates import Estimates
from trt_ptq.tuning.judge import Judge
from trt_ptq.tuning.search.alternatives import EXCLUDED, WEIGHT_ONLY
from trt_ptq.tuning.settings import DEFAULT_SETTINGS, TuningSettings
from trt_ptq.tuning.technique_order import gptq_last
from trt_ptq.tuning.trials import TECHNIQUES_TO_TRY, TIME_IS_UP, TuningResult


def tune(
    recipe: Recipe,
    candidates: CandidateBuilder,
    estimates: Estimates,
    judge: Judge,
    max_drop: float,
    *,
    methods: tuple[RangeMethod, ...] = (),
    by_default: tuple[Technique, ...] = (),
    try_techniques: bool = True,
    search: bool = True,
    mode: Mode = "w8a8",
    settings: TuningSettings = DEFAULT_SETTINGS,
) -> TuningResult:
    """Look for a better recipe while the loss of the model of a recipe exceeds `max_drop`.

    The output error on a few calibration samples decides what is worth asking the objective about.

    1. The techniques of the recipe are applied, where they apply to the model. What they lead to is scored as a whole,
       since nothing depends on what each of them gains. Where the loss is too high, its output error is broken down
       into weights only and activations only.
    2. Then other techniques are tried, before GPTQ: one is accepted if it meets the threshold or lowers the loss by at
       least 10 %. One that does not lower the output error accordingly is not scored.
    3. With a user's metric, the next best range methods are tried; in mode "mixed", one for each kind of layer, with
       or without a metric.
    4. The most sensitive layers are excluded: few that meet the threshold. A user's metric of a few hundred samples
       makes the best candidate look better than it is. The search then aims at half of the threshold, and also requires
       the output error to shrink in proportion; where that would exclude more than twice as many layers, it falls back
       to the threshold itself. Techniques that nobody requested are dropped if the threshold is met without them then.

    Progress is logged by the logger "trt_ptq.tuning". When the time of `judge` is up, no further candidate is begun.

    Args:
        recipe: how to quantize at first.
        candidates: builds the models.
        estimates: measures output errors, and ranks by them.
        judge: scores the models.
        max_drop: accuracy threshold: largest relative loss, as a fraction.
        methods: if given, the range method of these with the smallest output error replaces that of `recipe`, and is
            selected again after a technique changed the float model, and for mixed precision.
        by_default: techniques of `recipe` that nobody asked for; see `apply_techniques`.
        try_techniques: whether techniques that the recipe does not have may be tried.
        search: whether layers may be excluded.
        mode: in "mixed", layers become weight-only where they would be excluded, unless that is not enough.
        settings: constants of tuning.

    Raises:
        DataError, ModelError: see `Objective.evaluate` and `apply_techniques`.
    """
    judge.allowed = 1 + (len(TECHNIQUES_TO_TRY) if try_techniques else 0)
    judge.allowed += settings.num_runner_up_methods if judge.has_metric and methods else 0
    sets = settings.max_evaluations if judge.has_metric else settings.max_comparisons
    judge.allowed += (2 if mode == "mixed" else 1) * (sets + 1) * search + (mode == "mixed")
    tuner = BestSoFar(recipe, candidates, estimates, judge, max_drop, methods, settings, mode)
    warnings = tuner.start(gptq_last(recipe.techniques), by_default)
    requested = tuner.recipe
    for technique in TECHNIQUES_TO_TRY if try_techniques else ():
        if tuner.goes_on and technique not in recipe.techniques:
            tuner.try_technique(technique)
    for method in tuner.runner_up_methods() if judge.has_metric and tuner.goes_on else ():
        if tuner.goes_on:
            tuner.try_method(method)
    if tuner.goes_on and mode == "mixed":
        tuner.try_methods_by_kind()
    if search and tuner.goes_on and mode == "mixed":
        tuner.remove_from_int8(WEIGHT_ONLY)
    failed = tuner.remove_from_int8(EXCLUDED) if search and tuner.goes_on else None
    warnings += [failed] if failed else []
    if judge.time_is_up and (tuner.exceeds_threshold or tuner.recipe != requested):
        warnings.append(TIME_IS_UP)
    return TuningResult(
        recipe=tuner.recipe,
        searched=tuner.recipe != requested,
        metrics=tuner.best.metrics,
        trials=tuner.trials_with_output_errors(),
        warnings=tuple(warnings),
    )
