"""Accuracy-driven tuning: analyze the loss, apply recovery techniques, then exclude the most sensitive layers."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection

from trt_ptq._internal.quantities import format_percent
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.choices import Mode, Technique
from trt_ptq.errors import TrtPtqError
from trt_ptq.evaluation.verdict import format_loss
from trt_ptq.qdq.insert import TENSOR_KINDS
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.alternatives import EXCLUDED, WEIGHT_ONLY, Alternative
from trt_ptq.tuning.candidate_builder import BEFORE_CALIBRATION, CandidateBuilder
from trt_ptq.tuning.layer_search import SearchResult, search_layers
from trt_ptq.tuning.objective import Objective, Score
from trt_ptq.tuning.settings import DEFAULT_SETTINGS, TuningSettings
from trt_ptq.tuning.trials import TECHNIQUES_TO_TRY, TITLES, Decision, Trial, TuningResult

_logger = logging.getLogger("trt_ptq.tuning")


def tune(
    recipe: Recipe,
    candidates: CandidateBuilder,
    objective: Objective,
    max_drop: float,
    *,
    methods: tuple[RangeMethod, ...] = (),
    try_techniques: bool = True,
    search: bool = True,
    mode: Mode = "w8a8",
    settings: TuningSettings = DEFAULT_SETTINGS,
) -> TuningResult:
    """Analyze what the model of a recipe loses, and look for a better recipe while the loss exceeds `max_drop`.

    1. The loss is broken down into weights only, activations only, and both.
    2. The techniques of the recipe are applied. Then others are tried: one is accepted if it meets the threshold or
       lowers the loss by at least 10 %, and does not increase the output error on calibration data.
    3. With a user's metric, the next best range methods are tried.
    4. The most sensitive layers are excluded: few that meet the threshold. A user's metric of a few hundred samples
       makes the best candidate look better than it is. The search then aims at half of the threshold, and also requires
       the output error to shrink in proportion; where that would exclude more than twice as many layers, it falls back
       to the threshold itself. Techniques that nobody requested are dropped if the threshold is met without them then.

    Progress is logged by the logger "trt_ptq.tuning".

    Args:
        recipe: how to quantize at first.
        candidates: builds the models.
        objective: scores them.
        max_drop: accuracy threshold: largest relative loss, as a fraction.
        methods: if given, the range method of these with the smallest output error replaces that of `recipe`, and is
            selected again after a technique changed the float model, and for mixed precision.
        try_techniques: whether techniques that the recipe does not have may be tried.
        search: whether layers may be excluded.
        mode: in "mixed", layers become weight-only where they would be excluded, unless that is not enough.
        settings: constants of tuning.

    Raises:
        DataError, ModelError: see `Objective.evaluate`.
    """
    plain = recipe.model_copy(update={"techniques": ()})
    tuner = _Tuner(plain, candidates, objective, max_drop, methods, settings, recipe.techniques, mode)
    for technique in recipe.techniques:
        tuner.apply(technique, forced=True)
    requested = tuner.recipe
    for technique in TECHNIQUES_TO_TRY if try_techniques else ():
        if tuner.exceeds_threshold and technique not in recipe.techniques:
            tuner.apply(technique, forced=False)
    for method in tuner.runner_up_methods() if objective.metric else ():
        if tuner.exceeds_threshold:
            tuner.try_method(method)
    warnings = []
    if search and tuner.exceeds_threshold and mode == "mixed":
        tuner.remove_from_int8(WEIGHT_ONLY)
    if search and tuner.exceeds_threshold and (failure := tuner.remove_from_int8(EXCLUDED)):
        warnings.append(failure)
    return TuningResult(
        recipe=tuner.recipe,
        searched=tuner.recipe != requested,
        metrics=tuner.best.metrics,
        trials=tuple(tuner.trials),
        warnings=tuple(warnings),
    )


class _Tuner:
    """Evaluates one candidate after the other; `recipe` is the best so far, and `best` its score."""

    def __init__(
        self,
        plain: Recipe,
        candidates: CandidateBuilder,
        objective: Objective,
        max_drop: float,
        methods: tuple[RangeMethod, ...],
        settings: TuningSettings,
        requested: tuple[Technique, ...],
        mode: Mode,
    ) -> None:
        self.trials: list[Trial] = []
        self._candidates = candidates
        self._objective = objective
        self._max_drop = max_drop
        self._methods = methods
        self._settings = settings
        self._method_is_by_metric = False
        self._requested = requested
        self.recipe = plain = self._with_best_method(plain)
        for kind in () if mode == "w8a16" else TENSOR_KINDS:
            model = candidates.build(plain, (kind,)).qdq.model
            self._record(f"{kind} only", objective.evaluate(model), "analysis")
        self.best = self._evaluate(plain)
        self._record(
            "weights" if mode == "w8a16" else "weights and activations", self.best, "baseline", self._method_note(plain)
        )

    @property
    def exceeds_threshold(self) -> bool:
        """Whether the best candidate so far loses too much."""
        return self.best.loss > self._max_drop

    def runner_up_methods(self) -> list[str]:
        """The methods with the smallest output errors, without that of the recipe."""
        others = [name for name in self._method_errors(self.recipe) if name != self.recipe.method]
        return others[: self._settings.num_runner_up_methods]

    def try_method(self, name: str) -> None:
        """Switch to this range method if that lowers the loss."""
        recipe = self.recipe.model_copy(update={"method": name})
        self._accept_if_better(f"method {name}", recipe, self._evaluate(recipe))
        self._method_is_by_metric |= self.recipe == recipe

    def apply(self, technique: Technique, *, forced: bool) -> None:
        """Accept `technique` if forced or if it helps. Skipped silently if it does not apply to the model."""
        title = TITLES[technique]
        recipe = self.recipe.model_copy(update={"techniques": (*self.recipe.techniques, technique)})
        try:
            summary = self._candidates.summarize(recipe, technique)
            if not summary.num_sites and not forced:
                return
            if technique in BEFORE_CALIBRATION and summary.num_sites:
                recipe = self._with_best_method(recipe)
            if not forced and (increase := self._output_error_increase(recipe)):
                self.trials.append(Trial(title, {}, {}, "rejected: larger output error", increase))
                return
            score = self._evaluate(recipe)
        except TrtPtqError as error:
            if forced:
                raise
            self.trials.append(Trial(title, {}, {}, "failed", str(error)))
            return
        note = summary.note if summary.num_sites else "does not apply to this model"
        if recipe.method != self.recipe.method:
            note = f"method {recipe.method}; {note}"
        self._accept_if_better(title, recipe, score, forced, note)

    def remove_from_int8(self, alternative: Alternative) -> str | None:
        """Change the layers that cost the most accuracy to `alternative`; returns why that failed, if it did."""
        try:
            ranked = self._candidates.rank_layers(self.recipe)
        except TrtPtqError as error:
            return f"there was no search for layers to exclude: {error}"
        if len(ranked) < 2:
            loses = f"INT8 has {self._loss_text} {self._quantity}"
            return f"{loses}, and there is only one quantized layer: nothing is left to exclude"
        start = self._start_of_search(ranked, alternative)
        scores: dict[frozenset[str], Score] = {}

        def without(names: Collection[str]) -> Recipe:
            return alternative.apply(start, sorted(names, key=ranked.index))

        def loss(names: frozenset[str]) -> float:
            recipe = without(names)
            scores[names] = self._evaluate(recipe)
            expected = self._expected_loss(recipe)
            _logger.info(
                "evaluation %d of at most %d: %d of %d layers %s, %s %s%s",
                len(scores),
                self._settings.max_evaluations,
                len(names),
                len(ranked),
                alternative.name,
                format_loss(scores[names].loss, self._max_drop),
                self._quantity,
                f", {format_loss(expected)} expected from the output error" if expected else "",
            )
            return max(scores[names].loss, min(expected, self._max_drop))

        thresholds = [self._max_drop]
        if self._objective.metric:
            thresholds.insert(0, self._settings.selection_target * self._max_drop)
        result = search_layers(ranked, loss, thresholds, self._candidates.macs(self.recipe), self._settings)
        if result.excluded is None:
            return self._failure(result)
        self.recipe, self.best = without(result.excluded), scores[frozenset(result.excluded)]
        self._record(
            f"mixed precision: {len(result.excluded)} of {len(ranked)} layers {alternative.name}",
            self.best,
            note=f"method {start.method}; {', '.join(result.excluded)}; found in {result.evaluations} evaluations",
        )
        self._drop_techniques(min(threshold for threshold in thresholds if result.loss <= threshold))
        return None

    def _drop_techniques(self, threshold: float) -> None:
        """Drop the techniques that were not requested, if `threshold` is met without them now."""
        needless = self.recipe.techniques[len(self._requested) :]
        if not needless:
            return
        name = f"without {', '.join(map(TITLES.__getitem__, needless))}"
        recipe = self.recipe.model_copy(update={"techniques": self._requested})
        try:
            recipe = recipe if self._method_is_by_metric else self._with_best_method(recipe)
            score, expected = self._evaluate(recipe), self._expected_loss(recipe)
        except TrtPtqError as error:
            self.trials.append(Trial(name, {}, {}, "failed", str(error)))
            return
        accepted = max(score.loss, min(expected, self._max_drop)) <= threshold
        self._record(name, score, "accepted" if accepted else "rejected: above the threshold")
        if accepted:
            self.recipe, self.best = recipe, score

    def _failure(self, result: SearchResult) -> str:
        message = (
            f"INT8 has {self._loss_text} {self._quantity}. No mixed-precision configuration within "
            f"{format_percent(self._max_drop)} was found in {result.evaluations} evaluations"
        )
        if not math.isfinite(result.loss):
            return message
        advice = f" (accept it with `max_drop={format_percent(_rounded_up(result.loss))}`)" if result.loss < 1 else ""
        return f"{message}; the best had {result.loss:.4%} {self._quantity}{advice}"

    @property
    def _loss_text(self) -> str:
        return format_loss(self.best.loss, self._max_drop)

    @property
    def _quantity(self) -> str:
        """What scores measure: the loss of a metric, or the error of the outputs."""
        return "loss" if self._objective.metric else "output error"

    def _expected_loss(self, recipe: Recipe) -> float:
        """The loss if it were proportional to the output error; 0 without a user's metric, as the loss is just that.

        Some candidates that a metric of a few hundred samples accepts are only lucky; this detects them.
        """
        error = self._candidates.output_error(self.recipe)
        if not self._objective.metric or not error or not math.isfinite(error):
            return 0.0
        return min(self.best.loss, 1.0) * self._candidates.output_error(recipe) / error

    def _start_of_search(self, ranked: list[str], alternative: Alternative) -> Recipe:
        """The recipe to change layers of: by the method that is best without the layers that are likely changed.

        Those would decide on it, and do not matter then. A method that the user's metric selected stays.
        """
        if self._method_is_by_metric:
            return self.recipe
        likely = math.ceil(self._settings.likely_excluded * len(ranked))
        method = self._with_best_method(alternative.apply(self.recipe, ranked[:likely])).method
        return self.recipe.model_copy(update={"method": method})

    def _method_errors(self, recipe: Recipe) -> dict[str, float]:
        return self._candidates.rank_methods(recipe, self._methods) if self._methods else {}

    def _with_best_method(self, recipe: Recipe) -> Recipe:
        best = next(iter(self._method_errors(recipe)), recipe.method)
        return recipe.model_copy(update={"method": best})

    def _method_note(self, recipe: Recipe) -> str:
        errors = ", ".join(f"{name} {error:.3g}" for name, error in self._method_errors(recipe).items())
        return errors and f"output error on calibration data by method: {errors}"

    def _output_error_increase(self, recipe: Recipe) -> str:
        """The output error before and after, if `recipe` increases it; else empty."""
        before, after = map(self._candidates.output_error, (self.recipe, recipe))
        return f"output error on calibration data: {before:.3g} -> {after:.3g}" if after > before else ""

    def _accept_if_better(self, name: str, recipe: Recipe, score: Score, forced: bool = False, note: str = "") -> None:
        target = (1 - self._settings.min_gain) * self.best.loss
        is_enough = score.loss <= self._max_drop or score.loss <= target
        accepted = forced or (score.loss < self.best.loss and is_enough)
        self._record(name, score, "accepted" if accepted else "rejected: no gain", note)
        if accepted:
            self.recipe, self.best = recipe, score

    def _evaluate(self, recipe: Recipe) -> Score:
        return self._objective.evaluate(self._candidates.build(recipe).qdq.model)

    def _record(self, name: str, score: Score, decision: Decision = "accepted", note: str = "") -> None:
        _logger.info("%s: %s %s", name, format_loss(score.loss, self._max_drop), self._quantity)
        self.trials.append(Trial(name, score.losses, score.metrics, decision, note))


def _rounded_up(loss: float) -> float:
    """`loss` rounded up to two digits, as a threshold that allows it."""
    step = 10.0 ** (math.floor(math.log10(loss)) - 1)
    return math.ceil(loss / step) * step
