"""The search for layers to exclude from quantization."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.tuning.search.layer_search import order_by_benefit, search_layers

LAYERS = [f"layer{index}" for index in range(50)]
Loss = Callable[[frozenset[str]], float]


def nothing_known(_excluded: frozenset[str]) -> float:
    return math.nan


def recorded(loss: Loss) -> tuple[Loss, list[frozenset[str]]]:
    """`loss`, and the sets that it was called with."""
    asked = []

    def call(excluded: frozenset[str]) -> float:
        asked.append(excluded)
        return loss(excluded)

    return call, asked


def halving(excluded: frozenset[str]) -> float:
    """Each layer that is excluded halves the loss."""
    return 0.5 ** len(excluded)


def by_length(losses: Mapping[int, float]) -> Loss:
    return lambda excluded: losses[len(excluded)]


@given(st.sets(st.sampled_from(LAYERS), min_size=1, max_size=20))
def test_the_result_meets_the_threshold_within_the_evaluations(needed: set[str]) -> None:
    loss, asked = recorded(lambda excluded: len(needed - excluded) / 100)
    result = search_layers(LAYERS, loss, nothing_known, [0.0], {}, max_evaluations=15)
    assert len(set(asked)) == len(asked) == result.evaluations <= 15
    assert result.excluded is not None or LAYERS[-1] in needed  # excluding almost all is tried at last
    assert result.excluded is None or (needed <= set(result.excluded) and result.loss == 0)


def test_a_good_estimate_saves_evaluations() -> None:
    loss, asked = recorded(halving)
    result = search_layers(LAYERS, loss, halving, [0.005, 0.01], {}, expected_counts=True)
    assert result.excluded == tuple(LAYERS[:8])
    assert result.threshold == 0.005
    assert list(map(len, asked)) == [8]


def test_an_estimate_that_is_too_low_is_raised_in_proportion() -> None:
    loss, asked = recorded(lambda excluded: 4 * halving(excluded))
    result = search_layers(LAYERS, loss, halving, [0.005, 0.01], {}, expected_counts=True)
    assert list(map(len, asked)) == [8, 10]
    assert result.excluded == tuple(LAYERS[:10])


@pytest.mark.parametrize("estimate", [nothing_known, lambda _excluded: 1.0, lambda _excluded: math.inf])
def test_without_a_useful_estimate_the_number_of_layers_grows(estimate: Loss) -> None:
    loss, asked = recorded(lambda excluded: 0.0 if "layer9" in excluded else 1.0)
    result = search_layers(LAYERS, loss, estimate, [0.01], {}, expected_counts=True)
    assert list(map(len, asked)) == [1, 3, 8, 20, 19]
    assert result.excluded == tuple(LAYERS[:19])


def test_where_estimates_say_that_most_layers_are_not_enough_one_set_decides() -> None:
    loss, asked = recorded(halving)
    result = search_layers(LAYERS, loss, halving, [0.01], {}, longest=6, max_evaluations=15)
    assert (result.excluded, result.loss, list(map(len, asked))) == (None, 0.5**6, [6])
    loss, asked = recorded(lambda excluded: halving(excluded) / 10)
    result = search_layers(LAYERS, loss, halving, [0.01], {}, longest=6, max_evaluations=15)
    assert result.excluded == tuple(LAYERS[:4])
    assert max(map(len, asked)) == 6


def test_sets_are_proposed_by_the_cheaper_estimate() -> None:
    expected, judged = recorded(halving)
    result = search_layers(LAYERS, halving, expected, [0.005, 0.01], {}, estimated=halving, expected_counts=True)
    assert result.excluded == tuple(LAYERS[:8])
    assert set(map(len, judged)) == {8}


def test_layers_that_do_not_matter_are_quantized_again() -> None:
    def loss(excluded: frozenset[str]) -> float:
        return 0.0 if "layer4" in excluded else 1.0

    result = search_layers(LAYERS, loss, loss, [0.01], {}, max_evaluations=15)
    assert result.excluded == ("layer4",)
    counted, asked = recorded(loss)
    result = search_layers(LAYERS, counted, loss, [0.005, 0.01], {}, expected_counts=True)
    assert result.excluded == ("layer4",)
    assert asked[-1] == {"layer4"}


def test_layers_with_most_macs_are_quantized_again_first() -> None:
    loss, asked = recorded(lambda excluded: 0.0 if len(excluded) >= 3 else 1.0)
    result = search_layers(LAYERS[:5], loss, nothing_known, [0.01], {"layer1": 100, "layer0": 10}, max_evaluations=5)
    assert result.excluded == ("layer0", "layer1", "layer2")
    assert asked[-1] == {"layer0", "layer2"}


def test_what_is_quantized_again_has_to_meet_the_threshold_by_the_loss_as_well() -> None:
    loss, asked = recorded(lambda excluded: 0.0 if {"layer0", "layer4"} <= excluded else 1.0)
    expected: Loss = lambda excluded: 0.0 if "layer4" in excluded else 1.0  # noqa: E731
    result = search_layers(LAYERS, loss, expected, [0.01], {}, expected_counts=True)
    assert asked == [frozenset(LAYERS[:5]), {"layer4"}]
    assert result.excluded == tuple(LAYERS[:5])


def test_the_most_sensitive_layer_alone_is_tried_first() -> None:
    result = search_layers(LAYERS, lambda excluded: 0.0 if "layer0" in excluded else 1.0, nothing_known, [0.01], {})
    assert (result.excluded, result.evaluations) == (("layer0",), 1)


def test_a_single_layer_leaves_nothing_to_try() -> None:
    result = search_layers(["layer"], lambda _excluded: 1.0, nothing_known, [0.01], {})
    assert result.excluded is None
    assert (result.loss, result.evaluations) == (math.inf, 0)


def test_excluding_all_layers_is_never_tried() -> None:
    loss, asked = recorded(lambda excluded: 0.0 if len(excluded) == len(LAYERS) else 0.5)
    assert search_layers(LAYERS, loss, halving, [0.0], {}).excluded is None
    assert max(map(len, asked)) == len(LAYERS) - 1


def test_the_next_threshold_is_for_where_the_first_cannot_be_met() -> None:
    losses = by_length({1: 0.5, 2: 0.009, 3: 0.008, 4: 0.008})
    asked_for, asked = recorded(losses)
    result = search_layers(LAYERS[:5], asked_for, losses, [0.005, 0.01], {}, expected_counts=True)
    assert (result.excluded, result.loss, result.threshold) == (("layer0", "layer1"), 0.009, 0.01)
    assert len(asked) == len(set(asked)) == result.evaluations  # no candidate is evaluated twice
    assert search_layers(LAYERS[:5], losses, losses, [0.0085, 0.01], {}, expected_counts=True).loss == 0.008


@pytest.mark.parametrize(("strict", "found"), [(8, 8), (9, 4)])
def test_a_stricter_threshold_is_not_worth_many_times_the_layers(strict: int, found: int) -> None:
    def loss(excluded: frozenset[str]) -> float:
        return 0.5 if len(excluded) < 4 else 0.009 if len(excluded) < strict else 0.004

    result = search_layers(LAYERS, loss, loss, [0.005, 0.01], {}, expected_counts=True)
    assert result.excluded is not None
    assert len(result.excluded) == found


def test_when_time_is_up_the_search_ends_with_what_it_has() -> None:
    loss, asked = recorded(lambda excluded: 0.0 if len(excluded) >= 3 else 1.0)
    options = {"max_evaluations": 15, "time_is_up": lambda: len(asked) == 3}
    result = search_layers(LAYERS, loss, nothing_known, [0.01], {}, **options)  # type: ignore[arg-type]
    assert list(map(len, asked)) == [1, 2, 4]
    assert (result.excluded, result.evaluations) == (tuple(LAYERS[:4]), 3)
    assert search_layers(LAYERS, loss, nothing_known, [0.01], {}, time_is_up=lambda: True).excluded is None


def test_layers_with_many_macs_stay_in_int8_longer() -> None:
    errors = {"large": 0.3, "small": 0.2, "none": 0.05, "worst": float("inf")}
    macs = {"large": 900, "small": 100, "worst": 10**6, "none": 0}
    assert order_by_benefit(errors, macs) == ["worst", "small", "large", "none"]
    assert order_by_benefit(errors, {}) == ["worst", "large", "small", "none"]


def test_seconds_saved_count_instead_of_macs_where_plans_tell_them() -> None:
    errors = {"fast": 4.0, "slow": 3.0, "lossy": 2.0}
    macs = dict.fromkeys(errors, 100)
    assert order_by_benefit(errors, macs, {"fast": 8e-6, "slow": 1e-6, "lossy": -1e-6}) == ["slow", "lossy", "fast"]
