"""What tuning accepts, by given output errors and losses: no model is built here."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest

from trt_ptq.calibrators.methods import AUTO_CANDIDATES, METHODS, RangeMethod
from trt_ptq.choices import Technique
from trt_ptq.errors import DataError, ModelError, TrtPtqError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.estimating.estimates import MethodRanking
from trt_ptq.tuning.judge import Judge, TimeLimit
from trt_ptq.tuning.kept_trials import KeptTrials
from trt_ptq.tuning.objective import Score
from trt_ptq.tuning.trials import DEFAULT_FAILED, LEFT_OUT, METHODS_BY_KIND, TIME_IS_UP, Decision, TuningResult
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


@pytest.mark.parametrize(
    ("output_error", "loss", "decision"),
    [
        (0.09, 0.4, "accepted"),
        (0.095, 0.4, "rejected: no gain"),
        (0.11, 0.4, "rejected: larger output error"),
        (0.09, 0.46, "rejected: no gain"),
        (0.09, 0.6, "rejected: no gain"),
        (math.inf, 0.4, "rejected: larger output error"),
    ],
)
def test_a_technique_is_accepted_for_a_real_gain_without_a_larger_output_error(
    output_error: float, loss: float, decision: Decision
) -> None:
    bench = Bench({"plain": 0.1, "equalization": output_error}, {"plain": 0.5, "equalization": loss})
    result = tuned(bench, search=False)
    assert {trial.name: trial.decision for trial in result.trials}["cross-layer equalization"] == decision
    assert ("equalization" in result.recipe.techniques) == (decision == "accepted")


def test_a_technique_that_looks_bad_at_first_is_not_measured_further() -> None:
    bench = Bench({"plain": 0.1, "equalization": 0.05}, {"plain": 0.5, "equalization": 0.4})
    bench.at_first["equalization"] = 0.11
    result = tuned(bench, search=False)
    trial = {trial.name: trial for trial in result.trials}["cross-layer equalization"]
    assert trial.decision == "rejected: larger output error"
    assert trial.note == "output error on calibration data at first: 0.1 -> 0.11"
    assert "equalization" not in bench.evaluated


def test_a_small_gain_that_meets_the_threshold_is_accepted() -> None:
    bench = Bench({"plain": 0.1, "equalization": 0.095}, {"plain": 0.0105, "equalization": 0.0099})
    assert tuned(bench, search=False).recipe.techniques == ("equalization",)


def test_after_a_technique_the_best_method_is_selected_again() -> None:
    bench = Bench({"plain": 0.1, "equalization": 0.05}, {"plain": 0.5, "equalization": 0.005})
    result = tuned(bench, methods=AUTO_CANDIDATES, search=False)
    assert result.recipe.method == AUTO_CANDIDATES[-1].name
    assert bench.ranked_for.count(("equalization",)) == 1


@pytest.mark.parametrize(("loss", "decision"), [(0.005, "accepted"), (0.49, "rejected: no gain")])
def test_mixed_gives_each_kind_of_layer_its_own_method_if_the_loss_shrinks(loss: float, decision: Decision) -> None:
    minmax, mse = METHODS["minmax"], METHODS["mse"]
    errors = {"plain": 0.1, "minmax in q": 0.2, "minmax in down": 0.09}
    bench = Bench({**errors, "minmax in q+minmax in down": 0.3}, {"minmax in down": loss})
    result = tuned(bench, methods=(mse, minmax), mode="mixed", try_techniques=False, search=False)
    trial = result.trials[-1]
    assert (trial.name, trial.note, trial.decision) == (METHODS_BY_KIND, "minmax for down", decision)
    methods = [(one.layers, one.method) for one in result.recipe.layer_methods]
    assert methods == ([(("down",), "minmax")] if decision == "accepted" else [])


def test_no_kind_of_layer_is_measured_once_the_time_is_up() -> None:
    bench = Bench({"plain": 0.1, "minmax in q": 0.05}, {"minmax in q": 0.005})
    limit = TimeLimit(0.5, lambda: float("minmax in q" in bench.measured))  # up once the first kind is measured
    methods = METHODS["mse"], METHODS["minmax"]
    result = tuned(bench, time_limit=limit, methods=methods, mode="mixed", try_techniques=False)
    assert (bench.measured[-1], bench.evaluated) == ("minmax in q", ["plain"])
    assert result.warnings == (TIME_IS_UP,)


@pytest.mark.parametrize("error", [DataError, ModelError])
def test_methods_by_kind_are_skipped_where_outputs_cannot_be_compared(
    monkeypatch: pytest.MonkeyPatch, error: type[TrtPtqError]
) -> None:
    def refuse(*_arguments: object, **_options: object) -> float:
        raise error("no output has a finite value to compare")

    bench = Bench({}, {})
    monkeypatch.setattr(bench, "output_error", refuse)
    methods = METHODS["mse"], METHODS["minmax"]
    result = tuned(bench, methods=methods, mode="mixed", try_techniques=False, search=False)
    assert (result.trials[-1].name, result.trials[-1].decision) == (METHODS_BY_KIND, "failed")


def test_excluded_layers_do_not_decide_on_the_method_of_others() -> None:
    bench = Bench({}, {"worst": 0.005})
    result = tuned(bench, methods=AUTO_CANDIDATES, try_techniques=False)
    assert [trial.name for trial in result.trials][-1] == "mixed precision: 1 of 10 layers excluded"
    assert (result.recipe.nodes_to_exclude, result.recipe.method) == (("worst",), AUTO_CANDIDATES[-1].name)
    assert result.trials[-1].note.startswith(f"method {AUTO_CANDIDATES[-1].name}; ")


def test_with_a_metric_the_search_aims_at_half_the_threshold() -> None:
    bench = Bench({"plain": 1.0, "worst": 0.001, "worst+0": 0.0005}, {"worst": 0.009, "worst+0": 0.004})
    for metric, excluded in (("a metric", ("worst", "0")), (None, ("worst",))):
        bench.metric = metric
        assert tuned(bench, try_techniques=False).recipe.nodes_to_exclude == excluded


def test_layers_that_a_metric_accepts_by_luck_are_not_enough() -> None:
    losses = {"plain": 0.5, "worst": 0.001, "worst+0": 0.002}
    for error, excluded in ((0.009, ("worst",)), (0.011, ("worst", "0"))):  # of 1.0: 0.45 % and 0.55 % are expected
        bench = Bench({"plain": 1.0, "worst": error, "worst+0": 0.001}, losses)
        bench.metric = "a metric"
        assert tuned(bench, try_techniques=False).recipe.nodes_to_exclude == excluded


def test_the_metric_alone_decides_where_the_output_error_does_not_shrink() -> None:
    bench = Bench({}, {"plain": 0.5, "worst": 0.009})
    bench.metric = "a metric"
    assert tuned(bench, try_techniques=False).recipe.nodes_to_exclude == ("worst",)


def test_a_method_that_the_metric_selected_stays_for_mixed_precision() -> None:
    method = AUTO_CANDIDATES[1].name
    bench = Bench({"plain": 1.0, "worst": 0.001}, {f"plain by {method}": 0.4, "worst": 0.004})
    bench.metric = "a metric"
    result = tuned(bench, methods=AUTO_CANDIDATES, try_techniques=False)
    assert (result.recipe.nodes_to_exclude, result.recipe.method) == (("worst",), method)


def test_a_requested_technique_stays_despite_a_larger_output_error_and_is_no_search() -> None:
    bench = Bench({"bias-correction": 0.9}, {"bias-correction": 0.9})
    result = tuned(bench, ("bias-correction",), search=False, try_techniques=False)
    assert result.recipe.techniques == ("bias-correction",)
    assert not result.searched


def test_techniques_of_the_recipe_are_scored_as_a_whole_before_others_are_tried() -> None:
    bench = Bench({}, {"smoothquant+gptq": 0.005})
    result = tuned(bench, ("smoothquant", "gptq"), search=False, methods=AUTO_CANDIDATES)
    assert (result.recipe.techniques, bench.evaluated) == (("smoothquant", "gptq"), ["smoothquant+gptq"])
    assert bench.ranked_for == [("smoothquant", "gptq")]
    assert [(trial.name, trial.decision) for trial in result.trials] == [
        ("SmoothQuant", "applied"),
        ("GPTQ rounding", "applied"),
        ("weights and activations", "baseline"),
    ]
    assert not result.searched


def test_techniques_that_are_tried_come_before_gptq_in_the_recipe() -> None:
    losses = {"plain": 0.5, "gptq": 0.4, "smoothquant+gptq": 0.1}
    bench = Bench({"plain": 0.1, "smoothquant": 0.05}, losses)
    result = tuned(bench, ("gptq",), search=False)
    assert result.recipe.techniques == ("smoothquant", "gptq")
    assert [trial.name for trial in result.trials if trial.decision == "accepted"] == ["SmoothQuant"]
    assert result.loss == 0.1
    assert bench.evaluated == ["gptq", "smoothquant+gptq"]


def test_a_technique_gets_its_first_look_without_gptq() -> None:
    bench = Bench({"plain": 0.1, "gptq": 0.05, "smoothquant+gptq": 0.01}, {"smoothquant+gptq": 0.001})
    bench.at_first["smoothquant"] = 0.11
    result = tuned(bench, ("gptq",), search=False)
    assert {trial.name: trial.decision for trial in result.trials}["SmoothQuant"] == "rejected: larger output error"
    assert result.recipe.techniques == ("gptq",)


@pytest.mark.parametrize("by_default", [True, False])
def test_gptq_that_nobody_asked_for_is_left_out_when_the_time_is_up(by_default: bool) -> None:
    bench = Bench({}, {"plain": 0.001, "gptq": 0.0005})
    result = tuned(bench, ("gptq",), TimeLimit(0.0), by_default=("gptq",) if by_default else ())
    assert result.recipe.techniques == (() if by_default else ("gptq",))
    assert bench.evaluated == ["plain" if by_default else "gptq"]
    assert [LEFT_OUT.format("GPTQ rounding")] * by_default == list(result.warnings)


def test_defaults_without_which_int8_is_of_no_use_stay_when_the_time_is_up() -> None:
    bench = Bench({}, {"smoothquant": 0.001})
    result = tuned(bench, ("smoothquant", "gptq"), TimeLimit(0.0), by_default=("smoothquant", "gptq"))
    assert result.recipe.techniques == ("smoothquant",)
    assert result.warnings == (LEFT_OUT.format("GPTQ rounding"),)


@pytest.mark.parametrize("by_default", [True, False])
def test_a_technique_that_fails_ends_the_run_only_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, by_default: bool
) -> None:
    bench = Bench({}, {"gptq": 0.001})

    def summarize(_recipe: Recipe, technique: Technique, *, roughly: bool = False) -> SimpleNamespace:
        if technique == "smoothquant":
            raise ModelError("the weight 'w' has NaN values")
        return SimpleNamespace(num_sites=1, note="")

    monkeypatch.setattr(bench, "summarize", summarize)
    if not by_default:
        with pytest.raises(ModelError, match="the weight 'w' has NaN values"):
            tuned(bench, ("smoothquant", "gptq"))
        return
    result = tuned(bench, ("smoothquant", "gptq"), by_default=("smoothquant", "gptq"))
    assert result.recipe.techniques == ("gptq",)
    assert [(trial.name, trial.decision) for trial in result.trials[:2]] == [
        ("SmoothQuant", "failed"),
        ("GPTQ rounding", "applied"),
    ]
    assert result.warnings == (DEFAULT_FAILED.format("SmoothQuant", "the weight 'w' has NaN values"),)


@pytest.mark.parametrize(("best", "advice"), [(0.0142, "`max_drop=1.5%`"), (0.5, "`max_drop=50%`")])
def test_a_search_that_fails_says_which_threshold_would_allow_the_best_candidate(best: float, advice: str) -> None:
    result = tuned(Bench({}, {"worst": best, "plain": 0.5}), try_techniques=False)
    assert result.warnings == (
        f"INT8 has 50.00% output error. No mixed-precision configuration within 1% that keeps 50% of the "
        f"multiply-accumulates in INT8 was found in 4 evaluations; "
        f"the best had {best:.4%} output error (accept it with {advice})",
    )


@pytest.mark.parametrize(("of_worst", "found"), [(1, True), (9, False)])
def test_no_search_takes_more_than_half_of_the_macs_out_of_int8(of_worst: int, found: bool) -> None:
    bench = Bench({}, {"plain": 0.5, "worst+0": 0.005})
    bench.macs_of = {"worst": of_worst, **{str(number): 1 for number in range(9)}}
    result = tuned(bench, try_techniques=False)
    assert (result.recipe.nodes_to_exclude == ("worst", "0")) == found
    assert [text for text in result.warnings if "keeps 50% of the multiply-accumulates in INT8" in text] == (
        [] if found else list(result.warnings)
    )


@pytest.mark.parametrize(("without", "accepted"), [(0.009, True), (0.02, False)])
def test_a_technique_that_the_search_made_superfluous_is_dropped(without: float, accepted: bool) -> None:
    losses = {"plain": 0.5, "equalization": 0.3, "equalization+worst": 0.005, "worst": without}
    result = tuned(Bench({"plain": 0.1, "equalization": 0.05}, losses))
    assert result.recipe.nodes_to_exclude == ("worst",)
    assert result.recipe.techniques == (() if accepted else ("equalization",))
    last = result.trials[-1]
    assert (last.name, last.losses) == ("without cross-layer equalization", {"loss": without})
    assert (last.decision == "accepted") == accepted


def test_a_requested_technique_is_never_dropped() -> None:
    losses = {"plain": 0.5, "equalization": 0.3, "equalization+worst": 0.005, "worst": 0.001}
    result = tuned(Bench({}, losses), ("equalization",))
    assert result.recipe.techniques == ("equalization",)
    assert result.trials[-1].name.startswith("mixed precision")


def test_a_metric_must_meet_half_the_threshold_without_a_technique_too() -> None:
    losses = {"plain": 0.5, "equalization": 0.3, "equalization+worst": 0.004, "worst": 0.006}
    bench = Bench({"plain": 1.0, "equalization": 0.5, "equalization+worst": 0.001, "worst": 0.001}, losses)
    bench.metric = "a metric"
    assert tuned(bench).recipe.techniques == ("equalization",)


@pytest.mark.parametrize("error", [DataError, ModelError])
def test_a_search_goes_on_where_outputs_cannot_be_compared(
    monkeypatch: pytest.MonkeyPatch, error: type[TrtPtqError]
) -> None:
    def refuse(*_arguments: object, **_options: object) -> float:
        raise error("no output has a finite value to compare")

    bench = Bench({}, {"worst": 0.004})
    bench.metric = "a metric"
    monkeypatch.setattr(bench, "first_look", refuse)
    monkeypatch.setattr(bench, "output_error", refuse)
    assert tuned(bench, try_techniques=False).recipe.nodes_to_exclude == ("worst",)


def test_no_output_error_is_measured_for_a_message(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench({}, {"worst": 0.005})
    bench.knows_looks = False
    with caplog.at_level(logging.INFO, "trt_ptq.tuning"):
        tuned(bench, try_techniques=False)
    assert "evaluation 2 of at most 17: 1 of 10 layers excluded: 0.50% output error" in caplog.messages


def test_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "trt_ptq.tuning"):
        tuned(Bench({}, {"worst": 0.005}), try_techniques=False)
    assert caplog.messages == [
        "evaluation 1 of at most 17: weights and activations: 50.00% output error",
        "evaluation 2 of at most 17: 1 of 10 layers excluded: 0.50% output error, "
        "50.00% expected from the output error",
        "evaluation 2 of at most 17: mixed precision: 1 of 10 layers excluded: 0.50% output error",
    ]
