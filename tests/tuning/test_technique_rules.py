"""Which techniques tuning applies and accepts, by given output errors and losses: no model is built here."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from tests.tuning.bench import Bench, tuned
from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.choices import Technique
from trt_ptq.errors import ModelError
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.judge import TimeLimit
from trt_ptq.tuning.trials import DEFAULT_FAILED, LEFT_OUT, Decision


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


def test_a_requested_technique_is_never_dropped() -> None:
    losses = {"plain": 0.5, "equalization": 0.3, "equalization+worst": 0.005, "worst": 0.001}
    result = tuned(Bench({}, losses), ("equalization",))
    assert result.recipe.techniques == ("equalization",)
    assert result.trials[-1].name.startswith("mixed precision")
