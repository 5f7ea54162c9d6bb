"""Candidates that are given up after some of the samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from trt_ptq.evaluation.by_sample.paired_test import ERROR_RATE, LOOKS, MIN_SAMPLES, PairedTest, student_t
from trt_ptq.evaluation.by_sample.sample_scores import SampleScores
from trt_ptq.types import Array


def given_up_after(reference: Array, candidate: Array, limit: float, lower: bool = False) -> int | None:
    test = PairedTest({"m": reference}, lambda _name: lower, limit)
    scores = SampleScores("metric", "m")
    for score in candidate:
        scores.add(score)
        if test.is_hopeless(scores):
            return scores.count
    return None


def test_a_bad_candidate_is_given_up_at_the_first_look() -> None:
    rng = np.random.default_rng(0)
    reference = np.ones(400)
    candidate = (rng.random(400) > 0.3).astype(float)
    assert given_up_after(reference, candidate, 0.01) == 100
    assert given_up_after(1 - reference + 1, 2 - candidate, 0.01, lower=True) == 100
    assert given_up_after(reference, candidate, 0.5) is None


def test_few_samples_give_nothing_up() -> None:
    samples = 4 * MIN_SAMPLES // 3
    assert given_up_after(np.ones(samples), np.zeros(samples), 0.01) == MIN_SAMPLES
    assert given_up_after(np.ones(MIN_SAMPLES), np.zeros(MIN_SAMPLES), 0.01) is None


def test_scores_that_are_not_numbers_give_nothing_up() -> None:
    assert given_up_after(np.ones(400), np.full(400, np.nan), 0.01) is None


@pytest.mark.parametrize("lost", [0.01, 0.05])
def test_a_candidate_that_just_meets_the_limit_is_hardly_ever_given_up(lost: float) -> None:
    rng, samples, given_up = np.random.default_rng(1), 1000, 0
    candidate = np.ones(samples)
    candidate[: round(lost * samples)] = 0
    for _ in range(1000):
        given_up += given_up_after_fast(np.ones(samples), rng.permutation(candidate), lost)
    assert given_up <= 10 * ERROR_RATE * 1000  # ten times the rate: the normal approximation is rough at 1 %


@pytest.mark.parametrize("freedom", [7, 15, 31, 400])
def test_quantiles_are_those_of_scipy(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    probability = 1 - ERROR_RATE / len(LOOKS)
    assert student_t(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=0.03)


def test_samples_that_go_together_count_as_one() -> None:
    """Each text has a difference of its own, and the texts are of different lengths; their mean is just met."""
    rng, given_up, alone = np.random.default_rng(0), 0, 0
    for _ in range(300):
        sizes = rng.integers(20, 200, 32)
        texts = [0.1 * rng.normal() + 0.01 * rng.normal(size=size) for size in sizes]
        shift = np.concatenate(texts).mean()
        texts = [text - shift for text in texts]
        given_up += is_given_up(texts, in_groups=True)
        alone += is_given_up(texts, in_groups=False)
    assert given_up <= 10 * ERROR_RATE * 300 < 30 < alone
    assert is_given_up([np.full(size, -0.5) + 0.1 * rng.normal(size=size) for size in sizes], in_groups=True)


def test_few_groups_give_nothing_up() -> None:
    assert not is_given_up([np.full(100, -1.0)] * 9, in_groups=True)
    assert is_given_up([np.full(100, -1.0)] * 16, in_groups=True)


def is_given_up(texts: Sequence[Array], *, in_groups: bool) -> bool:
    """Whether a candidate that differs from 1 by `texts` is given up, where no loss is allowed."""
    reference = np.ones(sum(map(len, texts)))
    test = PairedTest({"m": reference}, lambda _name: False, 0.0, in_groups=in_groups)
    scores = SampleScores("metric", "m")
    for text in texts:
        scores.add(1 + text)
        if test.is_hopeless(scores):
            return True
    return False


def given_up_after_fast(reference: Array, candidate: Array, limit: float) -> bool:
    """Whether it is given up at any look; scores come in quarters."""
    test, scores = PairedTest({"m": reference}, lambda _name: False, limit), SampleScores("metric", "m")
    for quarter in np.split(candidate, 4):
        scores.add(quarter)
        if test.is_hopeless(scores):
            return True
    return False
