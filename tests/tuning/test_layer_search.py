"""The search for layers to leave in float."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.tuning.layer_search import MOST_EVALUATIONS, SearchResult, by_worth, search_layers

LAYERS = [f"layer{index}" for index in range(50)]


@given(st.sets(st.sampled_from(LAYERS), min_size=1, max_size=20))
def test_what_is_found_is_allowed_and_takes_few_evaluations(needed: set[str]) -> None:
    calls = []

    def loss(kept: frozenset[str]) -> float:
        calls.append(kept)
        return len(needed - kept) / 100

    found = search_layers(LAYERS, loss, [0.0], {})
    assert len(calls) == found.evaluations <= MOST_EVALUATIONS
    assert found.kept is None or (needed <= set(found.kept) and found.loss == 0)


def test_layers_that_are_not_needed_are_given_back() -> None:
    found = search_layers(LAYERS, lambda kept: 0.0 if "layer5" in kept else 1.0, [0.01], {})
    assert found.kept == ("layer5",)


def test_of_layers_that_are_not_needed_those_with_most_arithmetic_are_given_back_first() -> None:
    asked = []

    def loss(kept: frozenset[str]) -> float:
        asked.append(kept)
        return 0.0 if len(kept) >= 3 else 1.0

    found = search_layers(LAYERS[:5], loss, [0.01], {"layer1": 100, "layer0": 10}, most_evaluations=5)
    assert found.kept == ("layer0", "layer1", "layer2")
    assert asked[-1] == {"layer0", "layer2"}


def test_the_most_sensitive_layer_alone_is_tried_first() -> None:
    found = search_layers(LAYERS, lambda kept: 0.0 if "layer0" in kept else 1.0, [0.01], {})
    assert (found.kept, found.evaluations) == (("layer0",), 1)


def test_a_single_layer_leaves_nothing_to_try() -> None:
    assert search_layers(["layer"], lambda _kept: 1.0, [0.01], {}) == SearchResult(None, float("inf"), 0)


def test_all_layers_in_float_are_no_answer() -> None:
    found = search_layers(LAYERS, lambda kept: 0.0 if len(kept) == len(LAYERS) else 0.5, [0.01], {})
    assert found.kept is None
    assert found.loss == 0.5


def test_the_next_gate_is_for_where_the_first_cannot_be_met() -> None:
    losses = {1: 0.5, 2: 0.009, 3: 0.008, 4: 0.008}
    asked = []

    def loss(kept: frozenset[str]) -> float:
        asked.append(kept)
        return losses[len(kept)]

    found = search_layers(LAYERS[:5], loss, [0.005, 0.01], {})
    assert (found.kept, found.loss) == (("layer0", "layer1"), 0.009)
    assert len(asked) == len(set(asked)) == found.evaluations  # none is judged for each gate
    assert search_layers(LAYERS[:5], loss, [0.0085, 0.01], {}).loss == 0.008


def test_layers_with_much_arithmetic_stay_in_int8_longer() -> None:
    costs = {"large": 0.3, "small": 0.2, "none": 0.05, "worst": float("inf")}
    macs = {"large": 900, "small": 100, "worst": 10**6, "none": 0}
    assert by_worth(costs, macs) == ["worst", "small", "large", "none"]
    assert by_worth(costs, {}) == ["worst", "large", "small", "none"]


@pytest.mark.parametrize(("strict", "found"), [(8, 8), (9, 4)])
def test_a_stricter_gate_is_not_worth_many_times_the_layers(strict: int, found: int) -> None:
    def loss(kept: frozenset[str]) -> float:
        return 0.5 if len(kept) < 4 else 0.009 if len(kept) < strict else 0.004

    kept = search_layers(LAYERS, loss, [0.005, 0.01], {}).kept
    assert kept is not None
    assert len(kept) == found
