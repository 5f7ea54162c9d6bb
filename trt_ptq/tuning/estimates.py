"""What a few calibration batches say of recipes: cheap enough to ask about many, before the objective is asked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache

from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.data.subset import Subset, evenly_spaced
from trt_ptq.errors import DataError, ModelError, OutputError
from trt_ptq.qdq.insert import TENSOR_KINDS, TensorKind
from trt_ptq.recipe import Recipe
from trt_ptq.sensitivity.measure import Ranking, rank_layers
from trt_ptq.tuning.candidate_builder import CandidateBuilder
from trt_ptq.tuning.kept_trials import KeptTrials
from trt_ptq.tuning.layer_search import order_by_benefit
from trt_ptq.tuning.output_deviation import OutputDeviation
from trt_ptq.tuning.settings import DEFAULT_SETTINGS, TuningSettings
from trt_ptq.types import BatchSource, ProgressCallback, no_progress


class Estimates:
    """Output errors of recipes, and rankings by them.

    Args:
        candidates: builds the models.
        deviation: measures output errors.
        calibration: the data that layers are ranked on.
        kept: what an earlier run measured.
        progress: shows progress.
        settings: constants of tuning.
        seconds_saved: estimated seconds that each layer saves in INT8, where plans are known.
    """

    def __init__(
        self,
        candidates: CandidateBuilder,
        deviation: OutputDeviation,
        calibration: BatchSource,
        kept: KeptTrials,
        progress: ProgressCallback = no_progress,
        settings: TuningSettings = DEFAULT_SETTINGS,
        seconds_saved: Mapping[str, float] | None = None,
    ) -> None:
        self._candidates = candidates
        self._deviation = deviation
        self._calibration = calibration
        self._kept = kept
        self._progress = progress
        self._settings = settings
        self._seconds_saved = seconds_saved or {}
        self._method_ranking_of = cache(self._rank_methods)

    def output_error(self, recipe: Recipe, kinds: tuple[TensorKind, ...] = TENSOR_KINDS) -> float:
        """The output error with the rest in FP32, on calibration data; see `OutputDeviation`.

        Args:
            recipe: the recipe of the model.
            kinds: what is in INT8: weights, activations or both.
        """
        detail = "" if kinds == TENSOR_KINDS else ", ".join(kinds)
        if (kept := self._kept.find("output error", recipe, detail)) is None:
            kept = self._deviation.measure(self._candidates.build_for_search(recipe, kinds))
            self._kept.keep(kept, "output error", recipe, detail)
        return float(kept)

    def is_measured(self, recipe: Recipe) -> bool:
        """Whether `output_error` costs nothing."""
        return self._kept.find("output error", recipe) is not None

    def rank_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> dict[str, float]:
        """The output error by each of `methods`, the smallest first; of equal ones, in their order.

        Computed with Q/DQ only: without bias correction. Infinite where a model fails.
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

        Where single batches disagree, that of the more sensitive half is the mean over more batches.
        """
        model, table = self._candidates.calibrated_model(recipe).model, self._candidates.table(recipe)
        first, most = self._settings.ranking_batches, self._settings.ranking_batches_on_disagreement

        def rank_on(source: Subset, only: Collection[str] | None = None) -> Ranking:
            excluded, weight_only = recipe.nodes_to_exclude, recipe.weight_only
            return rank_layers(model, table, source, recipe.attention, excluded, self._progress, weight_only, only)

        ranking = rank_on(evenly_spaced(self._calibration, first))
        if ranking.agreement >= self._settings.min_ranking_agreement or (self._calibration.total or most) <= first:
            return ranking.errors
        step = max((self._calibration.total or 0) // most, 1)
        others = Subset(self._calibration, 2 * step, (step,), stop=step * most)  # those between, every other of `most`
        half = [*ranking.errors][: math.ceil(len(ranking.errors) / 2)]
        with suppress(OutputError):  # no room for the activations of more batches
            more, second = rank_on(others, half).errors, most // 2
            mean = {name: (first * ranking.errors[name] + second * more[name]) / (first + second) for name in half}
            return ranking.errors | mean
        return ranking.errors

    def _rank_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> dict[str, float]:
        errors = {}
        for method in self._progress(methods, "Comparing range methods", len(methods)):
            try:
                errors[method.name] = self.output_error(recipe.model_copy(update={"method": method.name}))
            except (DataError, ModelError):
                errors[method.name] = math.inf
        return dict(sorted(errors.items(), key=lambda item: item[1]))
