"""A Histogram holds 4096 counts over [0, 2**exponent) and widens without loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.kernels import BINS, MIN_EXPONENT, fold
from trt_ptq.errors import StatisticsError


def random_counts(seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 2**40, BINS)


histograms = st.builds(
    lambda exponent, seed: Histogram(exponent, random_counts(seed)), st.integers(-20, 20), st.integers(0, 1000)
)


@pytest.mark.parametrize("steps", range(15))
def test_widening_adds_neighbours_in_pairs(steps: int) -> None:
    folded, expected = random_counts(steps), random_counts(steps)
    fold(folded, steps)
    for _ in range(steps):
        expected = np.concatenate([expected[0::2] + expected[1::2], np.zeros(BINS // 2, np.int64)])
    assert np.array_equal(folded, expected)


@given(histograms, histograms, histograms)
def test_merge_is_commutative_associative_and_keeps_every_count(
    first: Histogram, second: Histogram, third: Histogram
) -> None:
    assert first.merge(second) == second.merge(first)
    assert first.merge(second).merge(third) == first.merge(second.merge(third))
    assert first.merge(second).counts.sum() == first.counts.sum() + second.counts.sum()


def test_merge_changes_neither_side() -> None:
    narrow, wide = Histogram(0, random_counts(1)), Histogram(5, random_counts(2))
    narrow.merge(wide)
    assert narrow == Histogram(0, random_counts(1))
    assert wide == Histogram(5, random_counts(2))


def test_width_and_last_bin() -> None:
    counts = np.zeros(BINS, np.int64)
    assert Histogram(3, counts).last_bin == 0
    counts[[7, 3000]] = 1
    assert Histogram(3, counts).bin_width == 8 / 4096
    assert Histogram(3, counts).last_bin == 3000


@pytest.mark.parametrize(
    ("exponent", "counts"),
    [
        (0, np.zeros(BINS, np.int32)),
        (0, np.zeros(BINS - 1, np.int64)),
        (0, np.full(BINS, -1, np.int64)),
        (MIN_EXPONENT - 1, np.zeros(BINS, np.int64)),
        (129, np.zeros(BINS, np.int64)),
    ],
    ids=["int32", "too few bins", "negative", "range below float32", "range above float32"],
)
def test_impossible_counts_are_refused(exponent: int, counts: npt.NDArray[np.int64]) -> None:
    with pytest.raises(StatisticsError):
        Histogram(exponent, counts)
