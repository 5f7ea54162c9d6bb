"""What a few calibration samples say of recipes: cheap enough to ask about many, before the objective is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.errors import DataError, ModelError, OutputError
from trt_ptq.evaluation.verdict import format_loss
from trt_ptq.qdq.insert import TENSOR_KINDS, TensorKind
from trt_ptq.recipe import Recipe
from trt_ptq.sensitivity.measure import Ranking, rank_layers
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.tuning.estimating.output_deviation import DeviationSums, OutputDeviation
from trt_ptq.tuning.kept_trials import KeptTrials, Measurement
from trt_ptq.tuning.search.layer_search import order_by_benefit
from trt_ptq.tuning.settings import DEFAULT_SETTINGS, TuningSettings
from trt_ptq.types import BatchSource, ProgressCallback, no_progress


@dataclass(frozen=True)
class MethodRanking:
    """Range methods by the output error of a recipe, the smallest first; of equal ones, in the order they were given.

    Attributes:
        errors: output errors, infinite where the model fails.
        at_first_look: errors at the first look, of the methods that seemed worse there.
    """

    errors: dict[str, float] = field(default_factory=dict)
    at_first_look: dict[str, float] = field(default_factory=dict)

    def describe(self) -> str:
        """The ranking as text; empty without methods."""
        errors, looks = (
            ", ".join(f"{format_loss(error)} by {name}" for name, error in part.items())
            for part in (self.errors, self.at_first_look)
        )
        note = errors and f"output error on calibration data: {errors}"
        return f"{note}; at first: {looks}" if looks else note


class Estimates:
    """Output errors of recipes, and rankings by them.

    Args:
        candidates: builds the models.
        deviation: measures output errors.
        kept: what an earlier run measured.
        progress: shows progress.
        settings: constants of tuning.
        seconds_saved: estimated seconds that each layer saves in INT8, where plans are known.
    """

    def __init__(
        self,
        candidates: CandidateBuilder,
        deviation: OutputDeviation,
        kept: KeptTrials,
        progress: ProgressCallback = no_progress,
        settings: TuningSettings = DEFAULT_SETTINGS,
        seconds_saved: Mapping[str, float] | None = None,
    ) -> None:
        self._candidates = candidates
        self._deviation = deviation
        self._kept = kept
        self._progress = progress
        self._settings = settings
        self._seconds_saved = seconds_saved or {}
        self._sums: dict[tuple[Recipe, tuple[TensorKind, ...]], DeviationSums] = {}
        self._method_ranking_of = cache(self._rank_methods)

    def output_error(self, recipe: Recipe, kinds: tuple[TensorKind, ...] = TENSOR_KINDS) -> float:
        """The output error with the rest in FP32, on calibration data; see `OutputDeviation`.

        Args:
            recipe: the recipe of the model.
            kinds: what is in INT8: weights, activations or both.
        """
        detail = _detail(kinds)
        if (kept := self._kept.find("output error", recipe, detail)) is None:
            self._measure(recipe, kinds, parts=2)
            kept = self._kept.find("output error", recipe, detail)
        return float(kept)

    def first_look(
        self, recipe: Recipe, kinds: tuple[TensorKind, ...] = TENSOR_KINDS, *, roughly: bool = False
    ) -> float:
        """The output error on the samples of a first look alone.

        Args:
            recipe: the recipe of the model.
            kinds: what is in INT8: weights, activations or both.
            roughly: whether what the last technique changes is calibrated on as few samples: on these, so that a
                technique looks rather better than it is, but bias corrections on others, which their own fit too well.
        """
        detail = _detail(kinds, "roughly" if roughly else "")
        if (kept := self._kept.find("first look", recipe, detail)) is None:
            if roughly:
                model = self._candidates.build_for_search(recipe, kinds, roughly=True)
                self._kept.keep(self._deviation.measure(model, DeviationSums(), 1)[0], "first look", recipe, detail)
            else:
                self._measure(recipe, kinds, parts=1)
            kept = self._kept.find("first look", recipe, detail)
        return float(kept)

    def _measure(self, recipe: Recipe, kinds: tuple[TensorKind, ...], parts: int) -> None:
        """Measure what was not measured yet, and keep it."""
        sums = self._sums.pop((recipe, kinds), DeviationSums())
        names: list[Measurement] = ["first look", "output error"]
        del names[: sums.parts]
        errors = self._deviation.measure(self._candidates.build_for_search(recipe, kinds), sums, parts)
        for name, error in zip(names, errors, strict=False):
            self._kept.keep(error, name, recipe, _detail(kinds))
        if sums.parts == 1:
            self._sums[recipe, kinds] = sums

    def is_measured(self, recipe: Recipe) -> bool:
        """Whether `output_error` costs nothing."""
        return self._kept.find("output error", recipe) is not None

    def is_seen(self, recipe: Recipe) -> bool:
        """Whether `first_look` costs nothing."""
        return self._kept.find("first look", recipe) is not None

    def rank_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> MethodRanking:
        """Range methods by the output error of `recipe`, without bias correction.

        All get a first look. Only those that come close to the best one there are measured on the other samples, and
        those with the same ranges as another one are not run at all.

        Args:
            recipe: the recipe.
            methods: the methods to compare.
        """
        others = tuple(technique for technique in recipe.techniques if technique != "bias-correction")
        plain = recipe.model_copy(update={"techniques": others, "method": methods[0].name})
        return self._method_ranking_of(plain, methods)

    def rank_layers(self, recipe: Recipe) -> list[str]:
        """The layers that `recipe` quantizes, those that benefit most from being excluded first.

        See `order_by_benefit`.
        """
        if (errors := self._kept.find("layer ranking", recipe)) is None:
            errors = self._errors_by_layer(recipe)
            self._kept.keep(errors, "layer ranking", recipe)
        by_layer = {name: float(error) for name, error in errors.items()}
        return order_by_benefit(by_layer, self._candidates.macs(recipe), self._seconds_saved)

    def _errors_by_layer(self, recipe: Recipe) -> dict[str, float]:
        """The error with one layer in INT8, by layer.

        Where the batches of a first look disagree, or there is only one, the more sensitive part is ranked on as many
        samples again.
        """
        model, table = self._candidates.calibrated_model(recipe).model, self._candidates.table(recipe)
        weights = self._candidates.stored_weights(recipe)

        def rank_on(source: BatchSource, only: Collection[str] | None = None) -> Ranking:
            return rank_layers(
                model,
                table,
                source,
                recipe.attention,
                recipe.nodes_to_exclude,
                self._progress,
                recipe.weight_only,
                only,
                weights,
            )

        samples = self._candidates.data.few
        ranking = rank_on(samples.first)
        if samples.second is None or ranking.agreement >= self._settings.min_ranking_agreement:
            return ranking.errors
        errors = ranking.errors
        part = [*errors][: math.ceil(self._settings.ranked_further * len(errors))]
        with suppress(OutputError):  # no room for the activations of more batches
            return ranking.with_more(rank_on(samples.second, part)).errors
        return errors

    def _rank_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> MethodRanking:
        recipes = {method.name: recipe.model_copy(update={"method": method.name}) for method in methods}
        same = self._same_ranges(recipes)
        looks = self._errors(recipes, same, self.first_look)
        distinct = sorted(looks[name] for name in looks if same[name] == name)
        limit = max(self._settings.first_look_factor * distinct[0], distinct[: self._settings.min_finalists][-1])
        finalists = {name: recipes[name] for name, error in looks.items() if error <= limit}
        errors = self._errors(finalists, same, self.output_error)
        return MethodRanking(errors, {name: error for name, error in looks.items() if name not in finalists})

    def _errors(
        self, recipes: Mapping[str, Recipe], same: Mapping[str, str], error_of: Callable[[Recipe], float]
    ) -> dict[str, float]:
        """Errors by method, in order; each of `recipes` has that of the method with the same ranges."""
        errors: dict[str, float] = {}
        for name, recipe in self._progress(recipes.items(), "Comparing range methods", len(recipes)):
            if same[name] in errors:
                errors[name] = errors[same[name]]
                continue
            try:
                errors[name] = error_of(recipe)
            except (DataError, ModelError):
                errors[name] = math.inf
        return dict(sorted(errors.items(), key=lambda item: item[1]))

    def _same_ranges(self, recipes: Mapping[str, Recipe]) -> dict[str, str]:
        """The first method with the same ranges, by method."""
        tables = {name: self._candidates.table(recipe).amax for name, recipe in recipes.items()}
        return {name: next(other for other in tables if tables[other] == amax) for name, amax in tables.items()}


def _detail(kinds: tuple[TensorKind, ...], more: str = "") -> str:
    return ", ".join((*(() if kinds == TENSOR_KINDS else kinds), *filter(None, [more])))
