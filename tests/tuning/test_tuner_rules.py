"""Which methods and layers tuning accepts, by given output errors and losses: no model is built here."""

from __future__ import annotations

import logging

import pytest

from tests.tuning.bench import Bench, tuned
from trt_ptq.calibrators.methods import AUTO_CANDIDATES, METHODS
from trt_ptq.errors import DataError, ModelError, TrtPtqError
from trt_ptq.tuning.judge import TimeLimit
from trt_ptq.tuning.trials import METHODS_BY_KIND, TIME_IS_UP, Decision


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
