"""The user's own metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks import images
from trt_ptq.data.user_function import load_function
from trt_ptq.errors import DataError, UsageError
from trt_ptq.evaluation.metric_direction import Lower
from trt_ptq.evaluation.metrics import UserMetric, metric_losses
from trt_ptq.evaluation.verdict import grade
from trt_ptq.onnx_io.load import Model

Run = Callable[[dict[str, Any]], dict[str, Any]]


def returning(**metrics: float) -> Callable[[Run], dict[str, float]]:
    """An evaluation function with these metrics for any model."""

    def evaluate(run: Run) -> dict[str, float]:
        run({"x": images(4)})
        return metrics

    return evaluate


def test_the_function_runs_the_model_and_returns_metrics(cnn: Model) -> None:
    def mean(run: Run) -> dict[str, float]:
        return {"mean": run({"x": images(4)})["y"].mean()}

    assert np.isfinite(UserMetric(mean, "metric.py:mean").evaluate(cnn.path)["mean"])


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
        UserMetric(lambda run: run({"x": images(4)}) and returned, "metric.py:broken").evaluate(cnn.path)


def test_a_float_model_with_nothing_left_to_lose_is_refused(cnn: Model) -> None:
    with pytest.raises(DataError, match=r"metric 'accuracy' of cnn.onnx is 0, so nothing could be lost"):
        UserMetric(returning(accuracy=0.0)).evaluate_reference(cnn.path)
    for evaluate in (returning(rare=0.0, all=0.9), returning(errors_lower=0.0), returning(bits=Lower(0))):
        assert UserMetric(evaluate).evaluate_reference(cnn.path) == evaluate(lambda _feeds: {})


def test_a_failing_function_is_named(cnn: Model) -> None:
    def broken(run: Run) -> dict[str, float]:
        raise KeyError("label")

    expected = r"metric\.py:broken fails on cnn\.onnx: test_metrics\.py line \d+: KeyError: 'label'$"
    with pytest.raises(DataError, match=expected):
        UserMetric(broken, "metric.py:broken").evaluate(cnn.path)


def test_a_wrong_output_name_is_answered_with_the_names_of_the_outputs(cnn: Model, tmp_path: Path) -> None:
    (tmp_path / "metric.py").write_text(
        "import numpy as np\n"
        "def score(run):\n"
        "    return {'a': run({'x': np.zeros((1, 16, 8, 8), np.float32)})['foo'].sum()}\n"
    )
    function = load_function(f"{tmp_path}/metric.py:score")
    with pytest.raises(DataError, match=r"metric\.py line 3: KeyError: 'foo' \(the model's outputs are 'y'\)$"):
        UserMetric(function).evaluate(cnn.path)


def test_a_batch_that_the_model_fails_on_is_reported(cnn: Model) -> None:
    with pytest.raises(DataError, match=r"metric\.py:wrong: cnn\.onnx fails on this batch: "):
        UserMetric(lambda run: run({"x": np.zeros((1, 3), np.float32)}), "metric.py:wrong").evaluate(cnn.path)


def test_an_array_instead_of_a_dict_is_refused(cnn: Model) -> None:
    with pytest.raises(DataError, match=r"^wrong: run takes a dict of arrays by input name, not ndarray$"):
        UserMetric(lambda run: run(images(4)), "wrong").evaluate(cnn.path)


def test_other_metrics_for_the_candidate_are_refused() -> None:
    with pytest.raises(DataError, match="for one model only"):
        metric_losses({"a": 1.0}, {"b": 1.0})


def test_a_perplexity_that_rises_is_a_loss() -> None:
    verdict = grade(UserMetric(print).losses({"perplexity": 25.0}, {"perplexity": 190.0}))
    assert verdict.grade == "needs work"
    assert verdict.loss == pytest.approx(6.6)


@pytest.mark.parametrize(
    ("reference", "lower_is_better"), [({"bits": Lower(2.0)}, ()), ({"bits": 2.0}, ("bits",))], ids=["Lower", "by name"]
)
def test_the_user_says_that_lower_is_better(reference: dict[str, float], lower_is_better: tuple[str, ...]) -> None:
    metric = UserMetric(print, lower_is_better=lower_is_better)
    assert metric.losses(reference, {"bits": 3.0}) == {"bits": 0.5}
    assert not metric.warnings(reference, {"bits": 3.0}, "int8.onnx")


def test_lower_survives_the_evaluation(cnn: Model) -> None:
    assert isinstance(UserMetric(returning(bits=Lower(2.0))).evaluate(cnn.path)["bits"], Lower)


def test_a_metric_of_unknown_direction_is_warned_of_by_name() -> None:
    metrics = {"quality": 0.9, "accuracy": 0.9, "loss": 0.9}
    warnings = UserMetric(print).warnings(metrics, metrics, "model.int8.onnx")
    assert len(warnings) == 1
    assert "'quality'" in warnings[0]
    assert "`lower_is_better`" in warnings[0]


@pytest.mark.parametrize(("int8", "warned"), [(0.96, True), (0.92, False), (0.1, False)])
def test_a_gain_that_quantization_does_not_explain_is_warned_of(int8: float, warned: bool) -> None:
    warnings = UserMetric(print).warnings({"accuracy": 0.9}, {"accuracy": int8}, "model.int8.onnx")
    assert any("'accuracy' of model.int8.onnx is 6.7% better" in warning for warning in warnings) == warned


def test_a_name_in_lower_is_better_that_is_no_metric_is_refused(cnn: Model) -> None:
    with pytest.raises(UsageError, match=r"`lower_is_better` names 'perplexty', .* returns 'perplexity'"):
        UserMetric(returning(perplexity=2.0), lower_is_better=("perplexty",)).evaluate_reference(cnn.path)


class Callable2:
    """A callable of two arguments."""

    def __call__(self, run: Run, split: str) -> dict[str, float]:
        return {"accuracy": run({"x": images(4)})["y"].size + (split == "test")}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda run: {}, False),
        (lambda run, split: {}, True),
        (lambda run, split="test": {}, True),
        (lambda run, samples=None: {}, False),
        (lambda *arguments: {}, False),
        (lambda run, *, samples=3: {}, False),
        (partial(lambda run, samples: {}, samples=3), False),
        (partial(lambda run, split, samples: {}, samples=3), True),
        (Callable2(), True),
        (dict, False),
    ],
)
def test_the_split_is_passed_to_functions_that_take_it(function: Callable[..., Any], expected: bool) -> None:
    assert UserMetric(function).takes_split == expected


@pytest.mark.parametrize("split", ["select", "test"])
def test_a_function_of_a_file_gets_the_split(cnn: Model, tmp_path: Path, split: Any) -> None:
    (tmp_path / "metric.py").write_text(
        "import numpy as np\n"
        "def is_test(run, split):\n"
        "    run({'x': np.ones((2, 16, 8, 8), np.float32)})\n"
        "    return {'accuracy': 1.0 + (split == 'test')}\n"
    )
    metric = UserMetric(load_function(f"{tmp_path / 'metric.py'}:is_test"))
    assert metric.takes_split
    assert metric.evaluate(cnn.path, split) == {"accuracy": 1.0 + (split == "test")}
