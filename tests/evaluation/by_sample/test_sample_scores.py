"""Metrics of functions that yield the scores of single samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks import images
from trt_ptq import Lower
from trt_ptq.errors import DataError
from trt_ptq.evaluation.by_sample.sample_scores import SampleScores
from trt_ptq.evaluation.metric_direction import is_lower_better
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.onnx_io.load import Model


def test_the_metric_is_the_mean_of_samples_and_batches() -> None:
    scores = SampleScores("metric.py:accuracy", "accuracy")
    for item in (True, 0.5, np.float32(0.0), [1, 0, 1]):
        scores.add(item)
    assert scores.count == 6
    assert scores.means() == {"accuracy": pytest.approx(3.5 / 6)}
    assert list(scores.by_metric()["accuracy"]) == [1, 0.5, 0, 1, 0, 1]


def test_several_metrics_have_their_directions() -> None:
    scores = SampleScores("metric", "metric")
    scores.add({"right": 1, "distance": Lower(0.5)})
    scores.add({"right": 0, "distance": Lower(0.25)})
    means = scores.means()
    assert means == {"right": 0.5, "distance": 0.375}
    assert is_lower_better("distance", means["distance"])
    assert not is_lower_better("right", means["right"])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["much"], "it must yield scores"),
        ([{}], "the same metrics for each sample"),
        ([1.0, {"other": 1.0}], "the same metrics for each sample"),
        ([{"a": [1, 2], "b": [1]}], "as many scores of each metric"),
    ],
)
def test_what_is_no_score_is_refused(items: list[Any], message: str) -> None:
    scores = SampleScores("metric.py:accuracy", "accuracy")
    for item in items[:-1]:
        scores.add(item)
    with pytest.raises(DataError, match=message):
        scores.add(items[-1])


def accuracy(run: Callable[..., Any], split: str) -> Iterator[float]:
    for picture in images(4):
        yield float(run({"x": picture[np.newaxis]})["y"].max() > 0)


def test_a_function_that_yields_is_a_metric(cnn: Model) -> None:
    metric = UserMetric(accuracy)
    assert metric.takes_split
    assert metric.evaluate(cnn.path).keys() == {"accuracy"}
    partial = metric.evaluate_samples(cnn.path, stop=lambda scores: scores.count == 2)
    assert partial.stopped
    assert partial.samples is not None
    assert partial.samples.count == 2


def no_score(run: Callable[..., Any]) -> Iterator[float]:
    run({"x": images(4)})
    yield from ()


def no_run(_run: Callable[..., Any]) -> Iterator[float]:
    yield 1.0


def failing(run: Callable[..., Any]) -> Iterator[float]:
    yield run({"x": images(4)})["no such output"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_score, "yielded no score"),
        (no_run, "does not run the model"),
        (failing, r"test_sample_scores.py line \d+: KeyError: 'no such output'"),
    ],
)
def test_a_generator_that_fails_is_named(cnn: Model, function: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        UserMetric(function).evaluate(cnn.path)
