"""The search for layers to exclude from quantization."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.tuning.layer_search import SearchResult, order_by_benefit, search_layers
from trt_ptq.tuning.settings import DEFAULT_SETTINGS, TuningSettings

LAYERS = [f"layer{index}" for index in range(50)]


@given(st.sets(st.sampled_from(LAYERS), min_size=1, max_size=20))
def test_the_result_meets_the_threshold_within_the_evaluations(needed: set[str]) -> None:
    calls = []

    def loss(excluded: frozenset[str]) -> float:
        calls.append(excluded)
        return len(needed - excluded) / 100

    result = search_layers(LAYERS, loss, [0.0], {})
    assert len(calls) == result.evaluations <= DEFAULT_SETTINGS.max_evaluations
    assert result.excluded is None or (needed <= set(result.excluded) and result.loss == 0)


def test_layers_that_do_not_matter_are_quantized_again() -> None:
    result = search_layers(LAYERS, lambda excluded: 0.0 if "layer5" in excluded else 1.0, [0.01], {})
    assert result.excluded == ("layer5",)


def test_layers_with_most_macs_are_quantized_again_first() -> None:
    asked = []

    def loss(excluded: frozenset[str]) -> float:
        asked.append(excluded)
        return 0.0 if len(excluded) >= 3 else 1.0

    result = search_layers(LAYERS[:5], loss, [0.01], {"layer1": 100, "layer0": 10}, TuningSettings(max_evaluations=5))
    assert result.excluded == ("layer0", "layer1", "layer2")
    assert asked[-1] == {"layer0", "layer2"}


def test_the_most_sensitive_layer_alone_is_tried_first() -> None:
    result = search_layers(LAYERS, lambda excluded: 0.0 if "layer0" in excluded else 1.0, [0.01], {})
    assert (result.excluded, result.evaluations) == (("layer0",), 1)


def test_a_single_layer_leaves_nothing_to_try() -> None:
    assert search_layers(["layer"], lambda _excluded: 1.0, [0.01], {}) == SearchResult(None, float("inf"), 0)


def test_excluding_all_layers_is_never_tried() -> None:
    result = search_layers(LAYERS, lambda excluded: 0.0 if len(excluded) == len(LAYERS) else 0.5, [0.01], {})
    assert result.excluded is None
    assert result.loss == 0.5


def test_the_next_threshold_is_for_where_the_first_cannot_be_met() -> None:
    losses = {1: 0.5, 2: 0.009, 3: 0.008, 4: 0.008}
    asked = []

    def loss(excluded: frozenset[str]) -> float:
        asked.append(excluded)
        return losses[len(excluded)]

    result = search_layers(LAYERS[:5], loss, [0.005, 0.01], {})
    assert (result.excluded, result.loss) == (("layer0", "layer1"), 0.009)
    assert len(asked) == len(set(asked)) == result.evaluations  # no candidate is evaluated twice
    assert search_layers(LAYERS[:5], loss, [0.0085, 0.01], {}).loss == 0.008


def test_layers_with_many_macs_stay_in_int8_longer() -> None:
    errors = {"large": 0.3, "small": 0.2, "none": 0.05, "worst": float("inf")}
    macs = {"large": 900, "small": 100, "worst": 10**6, "none": 0}
    assert order_by_benefit(errors, macs) == ["worst", "small", "large", "none"]
    assert order_by_benefit(errors, {}) == ["worst", "large", "small", "none"]


@pytest.mark.parametrize(("strict", "found"), [(8, 8), (9, 4)])
def test_a_stricter_threshold_is_not_worth_many_times_the_layers(strict: int, found: int) -> None:
    def loss(excluded: frozenset[str]) -> float:
        return 0.5 if len(excluded) < 4 else 0.009 if len(excluded) < strict else 0.004

    excluded = search_layers(LAYERS, loss, [0.005, 0.01], {}).excluded
    assert excluded is not None
    assert len(excluded) == found
