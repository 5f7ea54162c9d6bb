"""Which range methods are measured, and on how many samples: no model is built here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.errors import ModelError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.estimating.estimates import Estimates, MethodRanking
from trt_ptq.tuning.estimating.output_deviation import DeviationSums
from trt_ptq.tuning.kept_trials import KeptTrials

RECIPE = Recipe(model=ModelIdentity("", ""), method="minmax")
NAMES = [method.name for method in AUTO_CANDIDATES]


class Models:
    """Builder and deviation in one: each model is the name of its method, with the errors that it is given."""

    def __init__(self, at_first: list[float], of_all: list[float], ranges: list[int] | None = None) -> None:
        self._errors = dict(zip(NAMES, zip(at_first, of_all, strict=True), strict=True))
        self._ranges = dict(zip(NAMES, ranges or range(6), strict=True))
        self.runs: list[tuple[str, int]] = []

    def table(self, recipe: Recipe) -> SimpleNamespace:
        return SimpleNamespace(amax={"x": self._ranges[recipe.method]})

    def build_for_search(self, recipe: Recipe, *_: object) -> str:
        return recipe.method

    def measure(self, model: str, sums: DeviationSums, parts: int) -> list[float]:
        if self._errors[model][0] < 0:
            raise ModelError("it fails")
        errors = []
        for part in range(sums.parts, parts):
            self.runs.append((model, part))
            errors.append(self._errors[model][part])
        sums.parts = parts
        return errors


def ranked(models: Models) -> MethodRanking:
    estimates = Estimates(models, models, KeptTrials())  # type: ignore[arg-type]
    return estimates.rank_methods(RECIPE, AUTO_CANDIDATES)


def test_methods_far_from_the_best_get_a_first_look_only() -> None:
    models = Models([0.10, 0.14, 0.16, 0.149, 0.5, 0.3], [0.2, 0.1, 9, 0.3, 9, 9])
    ranking = ranked(models)
    assert ranking.errors == {NAMES[1]: 0.1, NAMES[0]: 0.2, NAMES[3]: 0.3}
    assert list(ranking.errors) == [NAMES[1], NAMES[0], NAMES[3]]
    assert ranking.at_first_look == {NAMES[2]: 0.16, NAMES[5]: 0.3, NAMES[4]: 0.5}
    assert models.runs == [(name, 0) for name in NAMES] + [(NAMES[index], 1) for index in (0, 1, 3)]


def test_three_are_measured_on_all_samples_at_least() -> None:
    ranking = ranked(Models([0.1, 0.5, 0.4, 0.3, 0.6, 0.7], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]))
    assert list(ranking.errors) == [NAMES[3], NAMES[2], NAMES[0]]
    assert ranking.describe().startswith("output error on calibration data: 30.00% by percentile 99.9, 40.00% by ")
    assert "; at first: 50.00% by minmax, 60.00% by mse, " in ranking.describe()


def test_methods_with_the_same_ranges_are_one_model() -> None:
    models = Models([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [7, 7, 7, 8, 9, 10])
    ranking = ranked(models)
    assert list(ranking.errors.items()) == [
        (NAMES[0], 0.1),
        (NAMES[1], 0.1),
        (NAMES[2], 0.1),
        (NAMES[3], 0.4),
        (NAMES[4], 0.5),
    ]
    assert [name for name, _ in models.runs] == [
        *(NAMES[index] for index in (0, 3, 4, 5)),
        *(NAMES[index] for index in (0, 3, 4)),
    ]


@pytest.mark.parametrize("failing", [range(1), range(6)])
def test_a_method_whose_model_fails_comes_last(failing: range) -> None:
    looks = [-1.0 if index in failing else 0.1 for index in range(6)]
    ranking = ranked(Models(looks, [0.1] * 6))
    methods = [*ranking.errors, *ranking.at_first_look]
    assert sorted(methods) == sorted(NAMES)
    assert methods[-1] == (NAMES[0] if len(failing) == 1 else NAMES[-1])
