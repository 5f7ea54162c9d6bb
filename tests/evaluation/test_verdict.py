"""From losses to a verdict."""

from __future__ import annotations

import math

import pytest

from trt_ptq.errors import DataError
from trt_ptq.evaluation.verdict import judge, relative_loss


@pytest.mark.parametrize(
    ("loss", "grade"),
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
def test_grades_follow_the_loss(loss: float, grade: str) -> None:
    assert judge({"accuracy": loss}).grade == grade


def test_the_worst_metric_decides() -> None:
    verdict = judge({"top1": 0.002, "recall": 0.02}, max_drop=0.05)
    assert (verdict.metric, verdict.loss, verdict.passed) == ("recall", 0.02, True)


def test_the_gate_is_the_users_own() -> None:
    assert not judge({"top1": 0.02}, max_drop=0.01).passed
    assert judge({"top1": 0.02}, max_drop=0.02).passed


@pytest.mark.parametrize(
    ("metric", "reference", "candidate", "loss"),
    [
        ("accuracy", 0.8, 0.76, 0.05),
        ("perplexity_lower", 20.0, 21.0, 0.05),
        ("score", 0.0, -0.1, 0.1),
        ("log_likelihood", -2.0, -2.2, 0.1),
    ],
)
def test_loss_is_relative_to_the_reference(metric: str, reference: float, candidate: float, loss: float) -> None:
    assert relative_loss(metric, reference, candidate) == pytest.approx(loss)


def test_no_metric_and_nan_are_refused() -> None:
    with pytest.raises(DataError, match="no metric"):
        judge({})
    with pytest.raises(DataError, match="'top1' is not a number"):
        judge({"top1": math.nan})
