"""From losses to a verdict."""

from __future__ import annotations

import math

import pytest

from trt_ptq.errors import DataError
from trt_ptq.evaluation.verdict import grade, relative_loss


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (-0.5, "excellent"),
        (0.0, "excellent"),
        (0.0099, "excellent"),
        (0.01, "acceptable"),
        (0.03, "acceptable"),
        (0.0301, "needs work"),
        (1.0, "needs work"),
    ],
)
def test_grades_follow_the_loss(loss: float, expected: str) -> None:
    assert grade({"accuracy": loss}).grade == expected


def test_the_worst_metric_decides() -> None:
    verdict = grade({"top1": 0.002, "recall": 0.02}, max_drop=0.05)
    assert (verdict.metric, verdict.loss, verdict.passed) == ("recall", 0.02, True)


def test_the_threshold_is_the_users_own() -> None:
    assert not grade({"top1": 0.02}, max_drop=0.01).passed
    assert grade({"top1": 0.02}, max_drop=0.02).passed


@pytest.mark.parametrize(
    ("reference", "candidate", "lower_is_better", "loss"),
    [(0.8, 0.76, False, 0.05), (20.0, 21.0, True, 0.05), (0.0, -0.1, False, 0.1), (-2.0, -2.2, False, 0.1)],
)
def test_loss_is_relative_to_the_reference(
    reference: float, candidate: float, lower_is_better: bool, loss: float
) -> None:
    assert relative_loss(reference, candidate, lower_is_better) == pytest.approx(loss)


def test_no_metric_and_nan_are_refused() -> None:
    with pytest.raises(DataError, match="no metric"):
        grade({})
    with pytest.raises(DataError, match="'top1' is NaN"):
        grade({"top1": math.nan})
