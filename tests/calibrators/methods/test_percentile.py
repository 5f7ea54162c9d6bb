"""Percentile: the raw data's percentile of |x|, to within the width of one bin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calibrators.measured import measure
from trt_ptq.calibrators.methods import Percentile
from trt_ptq.errors import UsageError

DISTRIBUTIONS = ("standard_normal", "standard_exponential", "standard_cauchy", "random")


@given(
    st.sampled_from(DISTRIBUTIONS),
    st.integers(0, 10_000),
    st.integers(1, 20_000),
    st.one_of(st.sampled_from([50.0, 99.0, 99.9, 99.99, 99.999]), st.floats(0.001, 100)),
)
def test_is_within_a_bin_of_numpys_percentile_of_the_raw_data(
    distribution: str, seed: int, size: int, percentile: float
) -> None:
    values = getattr(np.random.default_rng(seed), distribution)(size).astype(np.float32)
    tensor = measure(values)
    # The smallest value with `percentile` % at or below it: interpolating between values could leave the bin.
    expected = np.percentile(np.abs(values).astype(np.float64), percentile, method="inverted_cdf")
    amax = Percentile(percentile).amax(tensor)
    assert abs(amax - expected) <= tensor.histogram.bin_width


def test_is_interpolated_within_its_bin() -> None:
    values = np.linspace(0, 1, 1_000_001, dtype=np.float32)[:-1]
    tensor = measure(values)
    for percentile in (10, 50, 90, 99, 99.99):
        assert Percentile(percentile).amax(tensor) == pytest.approx(percentile / 100, abs=2e-6)
    assert tensor.histogram.bin_width > 1e-4  # without interpolation it would be that far off


@given(st.integers(0, 1000), st.lists(st.floats(0.01, 100), min_size=2, max_size=2))
def test_grows_with_the_percentile_and_never_beyond_the_data(seed: int, percentiles: list[float]) -> None:
    tensor = measure(np.random.default_rng(seed).standard_normal(500).astype(np.float32))
    low, high = (Percentile(percentile).amax(tensor) for percentile in sorted(percentiles))
    assert 0 < low <= high <= tensor.amax


def test_one_hundred_is_the_exact_maximum() -> None:
    assert Percentile(100).amax(measure(np.array([0.1, -0.7], np.float32))) == float(np.float32(0.7))


@pytest.mark.parametrize("values", [[], [0.0] * 5, [np.nan]], ids=["no values", "dead", "nothing finite"])
def test_a_tensor_without_a_range_has_none(values: list[float]) -> None:
    assert Percentile().amax(measure(np.array(values, np.float32))) == 0


def test_where_the_percentile_is_a_zero_nothing_is_clipped() -> None:
    """A range just above zero would lose every value that is not."""
    sparse = np.zeros(100_001, np.float32)
    sparse[7] = 5
    assert Percentile(99.99).amax(measure(sparse)) == 5


def test_zeros_count_as_values_below() -> None:
    half = np.concatenate([np.zeros(1000), np.linspace(0, 1, 1001)[1:]]).astype(np.float32)
    tensor = measure(half)
    assert Percentile(75).amax(tensor) == pytest.approx(0.5, abs=tensor.histogram.bin_width)


@pytest.mark.parametrize("percentile", [0, -1, 100.0001, float("nan"), float("inf")])
def test_a_percentile_outside_0_to_100_is_a_usage_error(percentile: float) -> None:
    with pytest.raises(UsageError, match="above 0 and up to 100"):
        Percentile(percentile)


@pytest.mark.parametrize(
    ("percentile", "name"),
    [(99.99, "percentile 99.99"), (100, "percentile 100"), (99.99999, "percentile 99.99999"), (50.0, "percentile 50")],
)
def test_its_name_has_the_exact_percentile(percentile: float, name: str) -> None:
    assert Percentile(percentile).name == name
