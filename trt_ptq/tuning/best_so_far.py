"""The best recipe so far, and what is tried to find a better one."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

from trt_ptq._internal.listing import counted, first_few
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.choices import Mode, Technique
from trt_ptq.errors import TrtPtqError
from trt_ptq.evaluation.verdict import format_loss
from trt_ptq.qdq.insert import TENSOR_KINDS
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.candidates.calibrated_models import BEFORE_CALIBRATION
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.tuning.estimating.estimates import Estimates, MethodRanking
from trt_ptq.tuning.estimating.methods_by_kind import with_methods_by_kind
from trt_ptq.tuning.estimating.rejection import rejection
from trt_ptq.tuning.judge import Judge
from trt_ptq.tuning.objective import Score
from trt_ptq.tuning.requested_techniques import apply_techniques
from trt_ptq.tuning.search.alternatives import Alternative
from trt_ptq.tuning.search.mixed_precision import Expectation, MixedPrecision, failure, search_mixed_precision
from trt_ptq.tuning.settings import TuningSettings
from trt_ptq.tuning.technique_order import with_technique, without_gptq
from trt_ptq.tuning.trials import METHODS_BY_KIND, TITLES, Decision, Trial

_logger = logging.getLogger("trt_ptq.tuning")
_MOST_NAMED = 3  # layers of a kind, in notes


class BestSoFar:
    """Tries one candidate after the other; `recipe` is the best so far, and `best` its score. See `tune`."""

    def __init__(
        self,
        recipe: Recipe,
        candidates: CandidateBuilder,
        estimates: Estimates,
        judge: Judge,
        max_drop: float,
        methods: tuple[RangeMethod, ...],
        settings: TuningSettings,
        mode: Mode,
    ) -> None:
        self.trials: list[Trial] = []
        self.recipe = recipe.model_copy(update={"techniques": ()})
        self._recipe_of: dict[int, Recipe] = {}  # by the index of the trial
        self._candidates = candidates
        self._estimates = estimates
        self._judge = judge
        self._max_drop = max_drop
        self._methods = methods
        self._settings = settings
        self._mode = mode
        self._method_is_by_metric = False

    def start(self, techniques: tuple[Technique, ...], by_default: tuple[Technique, ...]) -> list[str]:
        """Apply `techniques`, select the range method, and score that; returns warnings."""
        warnings = [*self._apply([name for name in techniques if name != "bias-correction"], by_default)]
        ranking = self._ranking(self.recipe, self._methods)
        self._finalists = tuple(method for method in self._methods if method.name in ranking.errors)
        self.recipe = self.recipe.model_copy(update={"method": next(iter(ranking.errors), self.recipe.method)})
        warnings += self._apply([name for name in techniques if name == "bias-correction"], by_default)
        self._requested = self.recipe.techniques
        self.best = self._judge.score(self.recipe)
        name = "weights" if self._mode == "w8a16" else "weights and activations"
        self._record(name, self.recipe, self.best, "baseline", ranking.describe())
        if self.goes_on and self._mode != "w8a16":
            self._analyze()
        return warnings

    def _apply(self, techniques: list[Technique], by_default: tuple[Technique, ...]) -> tuple[str, ...]:
        applied = apply_techniques(self.recipe, techniques, self._candidates, by_default, self._judge)
        self.recipe, self.trials = applied.recipe, [*self.trials, *applied.trials]
        return applied.warnings

    @property
    def exceeds_threshold(self) -> bool:
        """Whether the best candidate so far loses too much."""
        return self.best.loss > self._max_drop

    @property
    def goes_on(self) -> bool:
        """Whether a better candidate is needed, and there is time to try another."""
        return self.exceeds_threshold and not self._judge.time_is_up

    def trials_with_output_errors(self) -> tuple[Trial, ...]:
        """All trials, with the output errors that were measured, also later: a run that goes on knows them at once."""
        for index, recipe in self._recipe_of.items():
            if self._estimates.is_measured(recipe):
                self.trials[index] = replace(self.trials[index], output_error=self._estimates.output_error(recipe))
        return tuple(self.trials)

    def runner_up_methods(self) -> list[str]:
        """The methods with the smallest output errors, without that of the recipe."""
        ranked = self._ranking(self.recipe, self._finalists)
        others = [name for name in ranked.errors if name != self.recipe.method]
        return others[: self._settings.num_runner_up_methods]

    def try_method(self, name: str) -> None:
        """Switch to this range method if that lowers the loss."""
        recipe = self.recipe.model_copy(update={"method": name})
        self._accept_if_better(f"method {name}", recipe, self._judge.score(recipe, self._useless_loss))
        self._method_is_by_metric |= self.recipe == recipe

    def try_methods_by_kind(self) -> None:
        """Give each kind of layer its own range method if that lowers the loss; see `with_methods_by_kind`."""
        kinds, names = self._candidates.kinds_of_layers(self.recipe), [method.name for method in self._finalists]
        if len(names) < 2 or not 1 < len(kinds) <= self._settings.max_layer_kinds:
            return
        try:
            recipe = with_methods_by_kind(self.recipe, kinds, names, self._estimates, lambda: self._judge.time_is_up)
            if recipe == self.recipe or self._judge.time_is_up:
                return
            score = self._judge.score(recipe, self._useless_loss)
        except TrtPtqError as error:
            self.trials.append(Trial(METHODS_BY_KIND, {}, {}, "failed", str(error)))
            return
        note = "; ".join(f"{one.method} for {first_few(one.layers, _MOST_NAMED)}" for one in recipe.layer_methods)
        self._accept_if_better(METHODS_BY_KIND, recipe, score, note)

    def try_technique(self, technique: Technique) -> None:
        """Accept `technique` if it helps."""
        title = TITLES[technique]
        recipe = with_technique(self.recipe, technique)
        try:
            if not self._candidates.summarize(without_gptq(recipe), technique, roughly=True).num_sites:
                return
            limits = self.best.loss, self._max_drop, self._settings.min_gain
            if rejected := rejection(self._estimates, title, self.recipe, recipe, *limits):
                self.trials.append(rejected)
                return
            summary = self._candidates.summarize(recipe, technique)
            if technique in BEFORE_CALIBRATION:
                recipe = self._with_best_method(recipe)
            score = self._judge.score(recipe, self._useless_loss)
        except TrtPtqError as error:
            self.trials.append(Trial(title, {}, {}, "failed", str(error)))
            return
        note = summary.note
        if recipe.method != self.recipe.method:
            note = f"method {recipe.method}; {note}"
        self._accept_if_better(title, recipe, score, note)

    def remove_from_int8(self, alternative: Alternative) -> str | None:
        """Change the layers that cost the most accuracy to `alternative`; returns why that failed, if it did."""
        try:
            ranked = self._estimates.rank_layers(self.recipe)
        except TrtPtqError as error:
            return f"there was no search for layers to exclude: {error}"
        if len(ranked) < 2:
            loses = f"INT8 has {format_loss(self.best.loss, self._max_drop)} {self._judge.quantity}"
            return f"{loses}, and there is only one quantized layer: nothing is left to exclude"
        start = self._start_of_search(ranked, alternative)
        expectation = Expectation(self.recipe, self.best.loss, self._estimates, self._judge)
        thresholds = [self._max_drop]
        if self._judge.has_metric:
            thresholds.insert(0, self._settings.selection_target * self._max_drop)
        macs = self._candidates.macs(self.recipe)
        found = search_mixed_precision(start, ranked, alternative, expectation, thresholds, macs, self._settings)
        if not isinstance(found, MixedPrecision):
            return failure(found, self.best.loss, self._max_drop, self._judge.quantity, self._settings)
        self.recipe, self.best = found.recipe, found.score
        excluded, evaluations = found.result.excluded or (), counted(found.result.evaluations, "evaluation")
        self._record(
            f"mixed precision: {len(excluded)} of {len(ranked)} layers {alternative.name}",
            self.recipe,
            self.best,
            note=f"method {start.method}; {', '.join(excluded)}; found in {evaluations}",
        )
        self._drop_techniques(expectation, found.result.threshold)
        return None

    def _drop_techniques(self, expectation: Expectation, threshold: float) -> None:
        """Drop the techniques that were not requested, if `threshold` is met without them now."""
        needless = [technique for technique in self.recipe.techniques if technique not in self._requested]
        if not needless or self._judge.time_is_up:
            return
        name = f"without {', '.join(map(TITLES.__getitem__, needless))}"
        recipe = self.recipe.model_copy(update={"techniques": self._requested})
        try:
            recipe = recipe if self._method_is_by_metric else self._with_best_method(recipe)
            score, expected = self._judge.score(recipe, threshold), expectation.of(recipe)
        except TrtPtqError as error:
            self.trials.append(Trial(name, {}, {}, "failed", str(error)))
            return
        is_expected = threshold == self._max_drop or not expected > threshold
        accepted = score.loss <= threshold and is_expected
        self._record(name, recipe, score, "accepted" if accepted else "rejected: above the threshold")
        if accepted:
            self.recipe, self.best = recipe, score

    @property
    def _useless_loss(self) -> float:
        """A loss that no change is accepted with."""
        return max(self._max_drop, (1 - self._settings.min_gain) * self.best.loss)

    def _start_of_search(self, ranked: list[str], alternative: Alternative) -> Recipe:
        """The recipe to change layers of: by the method that is best without the layers that are likely changed.

        Those would decide on it, and do not matter then. A method that the user's metric selected stays.
        """
        if self._method_is_by_metric:
            return self.recipe
        likely = math.ceil(self._settings.likely_excluded * len(ranked))
        method = self._with_best_method(alternative.apply(self.recipe, ranked[:likely])).method
        return self.recipe.model_copy(update={"method": method})

    def _ranking(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> MethodRanking:
        return self._estimates.rank_methods(recipe, methods) if methods else MethodRanking()

    def _with_best_method(self, recipe: Recipe) -> Recipe:
        """`recipe` with the best of the methods that came close to the best one at first."""
        best = next(iter(self._ranking(recipe, self._finalists).errors), recipe.method)
        return recipe.model_copy(update={"method": best})

    def _analyze(self) -> None:
        """Report the output error of weights and of activations alone."""
        try:
            both = self._estimates.first_look(self.recipe)
            for kind in TENSOR_KINDS:
                error = self._estimates.first_look(self.recipe, (kind,))
                note = f"output error of both on the same samples: {both:.3g}"
                self.trials.append(Trial(f"{kind} only", {}, {}, "analysis", note, error))
        except TrtPtqError:  # the outputs cannot be compared
            return

    def _accept_if_better(self, name: str, recipe: Recipe, score: Score, note: str = "") -> None:
        accepted = score.loss < self.best.loss and score.loss <= self._useless_loss
        self._record(name, recipe, score, "accepted" if accepted else "rejected: no gain", note)
        if accepted:
            self.recipe, self.best = recipe, score

    def _record(self, name: str, recipe: Recipe, score: Score, decision: Decision = "accepted", note: str = "") -> None:
        loss = format_loss(score.loss, self._max_drop)
        _logger.info("%s: %s: %s %s", self._judge.status, name, loss, self._judge.quantity)
        stopped = "" if score.stopped_after is None else f"given up after {score.stopped_after} samples"
        note = "; ".join(filter(None, (stopped, note)))
        self._recipe_of[len(self.trials)] = recipe
        self.trials.append(Trial(name, score.losses, score.metrics, decision, note))
