"""A bench for tuning: output errors and losses are given, and no model is built."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.choices import Technique
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.estimating.estimates import MethodRanking
from trt_ptq.tuning.judge import Judge, TimeLimit
from trt_ptq.tuning.kept_trials import KeptTrials
from trt_ptq.tuning.objective import Score
from trt_ptq.tuning.trials import TuningResult
from trt_ptq.tuning.tuner import tune


class Bench:
    """Builder, estimates and objective in one: models are recipes, with the output error and loss that each is given.

    The output error holds for recipes that change more as well, until a smaller one is given.
    """

    metric: object = None

    def __init__(self, output_errors: dict[str, float], losses: dict[str, float]) -> None:
        self._output_errors, self._losses = output_errors, losses
        self.at_first: dict[str, float] = {}
        self.knows_looks = True
        self.macs_of: dict[str, int] = {}
        self.ranked_for: list[tuple[str, ...]] = []
        self.evaluated: list[str] = []
        self.measured: list[str] = []

    def build_for_search(self, recipe: Recipe, _kinds: object = None) -> str:
        key, by_method = _key(recipe), f"{_key(recipe)} by {recipe.method}"
        return by_method if by_method in self._losses else key

    def output_error(self, recipe: Recipe, _kinds: object = None) -> float:
        self.measured.append(_key(recipe))
        if (name := _key(recipe)) in self._output_errors:
            return self._output_errors[name]
        parts = {"plain", *name.split("+")}
        return min((error for key, error in self._output_errors.items() if parts >= set(key.split("+"))), default=0.1)

    def first_look(self, recipe: Recipe, _kinds: object = None, *, roughly: bool = False) -> float:
        return self.at_first.get(_key(recipe), self.output_error(recipe))

    def is_measured(self, _recipe: Recipe) -> bool:
        return False

    def is_seen(self, _recipe: Recipe) -> bool:
        return self.knows_looks

    def rank_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> MethodRanking:
        self.ranked_for.append(recipe.techniques)
        best = methods[-1] if recipe.techniques or recipe.nodes_to_exclude else methods[0]
        return MethodRanking({best.name: 0.1, **{method.name: 0.2 for method in methods if method != best}})

    def rank_layers(self, _recipe: Recipe) -> list[str]:
        return ["worst", *map(str, range(9))]

    def kinds_of_layers(self, _recipe: Recipe) -> list[tuple[str, ...]]:
        return [("q",), ("down",)]

    def macs(self, _recipe: Recipe) -> dict[str, int]:
        return self.macs_of

    def summarize(self, _recipe: Recipe, _technique: object, *, roughly: bool = False) -> SimpleNamespace:
        return SimpleNamespace(num_sites=1, note="")

    def evaluate(self, model: str, _limit: float) -> Score:
        self.evaluated.append(model)
        return Score({"loss": self._losses.get(model, 0.5)}, {})


def _key(recipe: Recipe) -> str:
    by_layer = [f"{one.method} in {', '.join(one.layers)}" for one in recipe.layer_methods]
    return "+".join((*recipe.techniques, *by_layer, *recipe.nodes_to_exclude)) or "plain"


def tuned(
    bench: Bench,
    techniques: tuple[Technique, ...] = (),
    time_limit: TimeLimit | None = None,
    **options: Any,
) -> TuningResult:
    recipe = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32", techniques=techniques)
    judge = Judge(bench, bench, KeptTrials(), time_limit or TimeLimit())  # type: ignore[arg-type]
    return tune(recipe, bench, bench, judge, 0.01, **options)  # type: ignore[arg-type]
