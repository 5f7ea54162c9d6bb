"""What is kept on the way to a better INT8 model, by given distances and losses: no model is made here."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from trt_ptq.calibrators.methods import AUTO_CANDIDATES, RangeMethod
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.objective import Score
from trt_ptq.tuning.tuner import TuningResult, tune


class Bench:
    """A workshop whose models are their recipes, with the distance and loss that each is given."""

    def __init__(self, distances: dict[str, float], losses: dict[str, float]) -> None:
        self._distances, self._losses = distances, losses
        self.ranked_for: list[tuple[str, ...]] = []

    def make(self, recipe: Recipe, _parts: object = None) -> SimpleNamespace:
        key, by_method = _key(recipe), f"{_key(recipe)} by {recipe.method}"
        return SimpleNamespace(qdq=SimpleNamespace(model=by_method if by_method in self._losses else key))

    def distance(self, recipe: Recipe) -> float:
        return self._distances.get(_key(recipe), 0.1)

    def ranked_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> dict[str, float]:
        self.ranked_for.append(recipe.techniques)
        closest = methods[-1] if recipe.techniques or recipe.nodes_to_exclude else methods[0]
        return {closest.name: 0.1, **{one.name: 0.2 for one in methods if one != closest}}

    def ranked_layers(self, _recipe: Recipe) -> list[str]:
        return ["worst", *map(str, range(9))]

    def macs(self, _recipe: Recipe) -> dict[str, int]:
        return {}

    def fit(self, _recipe: Recipe, _step: object) -> SimpleNamespace:
        return SimpleNamespace(places=1, note="")

    def judge(self, model: str) -> Score:
        return Score({"loss": self._losses.get(model, 0.5)}, {})

    evaluate: object = None


def _key(recipe: Recipe) -> str:
    return "+".join((*recipe.techniques, *recipe.nodes_to_exclude)) or "plain"


def improved(bench: Bench, **options: Any) -> TuningResult:
    plain = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32")
    return tune(plain, bench, bench, 0.01, search=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("distance", "loss", "decision"),
    [
        (0.09, 0.4, "kept"),
        (0.1, 0.4, "kept"),
        (0.11, 0.4, "dropped: further away"),
        (0.09, 0.46, "dropped: little or no gain"),
        (0.09, 0.6, "dropped: little or no gain"),
        (math.inf, 0.4, "dropped: further away"),
    ],
)
def test_a_repair_is_kept_for_a_gain_worth_it_that_takes_outputs_no_further(
    distance: float, loss: float, decision: str
) -> None:
    bench = Bench({"plain": 0.1, "equalization": distance}, {"plain": 0.5, "equalization": loss})
    found = improved(bench)
    assert {one.name: one.decision for one in found.trials}["cross-layer equalisation"] == decision
    assert ("equalization" in found.recipe.techniques) == (decision == "kept")


def test_a_small_gain_that_reaches_the_gate_is_kept() -> None:
    bench = Bench({}, {"plain": 0.0105, "equalization": 0.0099})
    assert improved(bench).recipe.techniques == ("equalization",)


def test_a_repaired_model_gets_the_method_that_is_closest_for_it() -> None:
    bench = Bench({}, {"plain": 0.5, "equalization": 0.005})
    found = improved(bench, methods=AUTO_CANDIDATES)
    assert found.recipe.method == AUTO_CANDIDATES[-1].name
    assert bench.ranked_for.count(("equalization",)) == 1


def test_the_layers_left_in_float_do_not_decide_on_the_method_of_others() -> None:
    plain = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32")
    bench = Bench({}, {"worst": 0.005})
    found = tune(plain, bench, bench, 0.01, methods=AUTO_CANDIDATES, repair=False)  # type: ignore[arg-type]
    assert [one.name for one in found.trials][-1] == "mixed precision: 1 of 10 layers in float"
    assert (found.recipe.nodes_to_exclude, found.recipe.method) == (("worst",), AUTO_CANDIDATES[-1].name)
    assert found.trials[-1].note.startswith(f"method {AUTO_CANDIDATES[-1].name}; ")


def test_a_metric_of_few_samples_is_aimed_at_half_the_gate() -> None:
    plain = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32")
    bench = Bench({"plain": 1.0, "worst": 0.001, "worst+0": 0.001}, {"worst": 0.009, "worst+0": 0.004})
    for evaluate, kept in (("a metric", ("worst", "0")), (None, ("worst",))):
        bench.evaluate = evaluate
        assert tune(plain, bench, bench, 0.01, repair=False).recipe.nodes_to_exclude == kept  # type: ignore[arg-type]


def test_a_set_that_a_metric_allows_by_luck_is_not_taken() -> None:
    plain = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32")
    losses = {"plain": 0.5, "worst": 0.001, "worst+0": 0.002}
    for distance, kept in ((0.009, ("worst",)), (0.011, ("worst", "0"))):  # of 1.0: 0.45 % and 0.55 % are expected
        bench = Bench({"plain": 1.0, "worst": distance, "worst+0": 0.001}, losses)
        bench.evaluate = "a metric"
        assert tune(plain, bench, bench, 0.01, repair=False).recipe.nodes_to_exclude == kept  # type: ignore[arg-type]


def test_the_metric_alone_decides_where_the_outputs_get_no_closer() -> None:
    plain = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32")
    bench = Bench({}, {"plain": 0.5, "worst": 0.009})
    bench.evaluate = "a metric"
    assert tune(plain, bench, bench, 0.01, repair=False).recipe.nodes_to_exclude == ("worst",)  # type: ignore[arg-type]


def test_a_method_that_the_metric_chose_stays_where_layers_are_in_float() -> None:
    plain = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32")
    chosen = AUTO_CANDIDATES[1].name
    bench = Bench({"plain": 1.0, "worst": 0.001}, {f"plain by {chosen}": 0.4, "worst": 0.004})
    bench.evaluate = "a metric"
    found = tune(plain, bench, bench, 0.01, methods=AUTO_CANDIDATES, repair=False)  # type: ignore[arg-type]
    assert (found.recipe.nodes_to_exclude, found.recipe.method) == (("worst",), chosen)


def test_what_was_asked_for_is_kept_although_further_away_and_is_no_search() -> None:
    plain = Recipe(model=ModelIdentity("", ""), method="minmax", high_precision="fp32", techniques=("bias-correction",))
    bench = Bench({"bias-correction": 0.9}, {"bias-correction": 0.9})
    found = tune(plain, bench, bench, 0.01, search=False, repair=False)  # type: ignore[arg-type]
    assert found.recipe.techniques == ("bias-correction",)
    assert not found.searched
