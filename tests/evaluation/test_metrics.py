"""The user's own metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.networks import images
from trt_ptq.errors import DataError
from trt_ptq.evaluation.metrics import evaluate_model, evaluate_reference, metric_losses
from trt_ptq.onnx_io.load import Model

Run = Callable[[dict[str, Any]], dict[str, Any]]


def test_the_function_runs_the_model_and_returns_metrics(cnn: Model) -> None:
    def mean(run: Run) -> dict[str, float]:
        return {"mean": run({"x": images(4)})["y"].mean()}

    assert np.isfinite(evaluate_model(cnn.path, mean, "metric.py:mean")["mean"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "must return a dict"),
        ({}, "must return a dict"),
        ({"accuracy": "high"}, "not a number"),
        ({"accuracy": 10**400}, "not a number"),
        ({"accuracy": float("nan")}, "metric 'accuracy' of cnn.onnx is nan"),
    ],
)
def test_what_is_no_metric_is_refused(cnn: Model, returned: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_model(cnn.path, lambda run: returned, "metric.py:broken")


def test_a_float_model_that_has_lost_all_already_is_refused(cnn: Model) -> None:
    def metric(name: str) -> Callable[[Run], dict[str, float]]:
        return lambda run: {name: 0.0 * run({"x": images(4)})["y"].size}

    with pytest.raises(DataError, match=r"metric 'accuracy' of cnn.onnx is 0, so nothing could be lost"):
        evaluate_reference(cnn.path, metric("accuracy"), "metric.py:accuracy")
    one_of_two = lambda run: metric("rare")(run) | {"all": 0.9}  # noqa: E731
    assert evaluate_reference(cnn.path, one_of_two, "metric.py:both") == {"rare": 0, "all": 0.9}
    assert evaluate_reference(cnn.path, metric("errors_lower"), "metric.py:errors") == {"errors_lower": 0}


def test_a_failing_function_is_named(cnn: Model) -> None:
    def broken(run: Run) -> dict[str, float]:
        raise KeyError("label")

    with pytest.raises(DataError, match=r"metric\.py:broken fails on cnn\.onnx: KeyError: 'label'"):
        evaluate_model(cnn.path, broken, "metric.py:broken")


def test_other_metrics_for_the_candidate_are_refused() -> None:
    with pytest.raises(DataError, match="not return the same metrics"):
        metric_losses({"a": 1.0}, {"b": 1.0})
