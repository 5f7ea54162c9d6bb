"""The user's own metric, on any number of models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_ptq.errors import DataError, TrtPtqError
from trt_ptq.evaluation.onnx_runner import infer, onnx_runner
from trt_ptq.evaluation.verdict import LOWER_IS_BETTER, relative_loss
from trt_ptq.types import Array, Feeds

Metrics = dict[str, float]
Evaluate = Callable[..., Any]


def evaluate_model(path: Path, function: Evaluate, label: str, finite: bool = True) -> Metrics:
    """Metrics that `function(run)` returns for the ONNX file `path`; `label` names the function in messages.

    Raises:
        DataError: the function fails, never runs the model, or returns something else than numbers by name, which are
            finite if so asked.
    """
    ran = False
    with onnx_runner(path) as runner:

        def run(feeds: Feeds) -> dict[str, Array]:
            nonlocal ran
            ran = True
            return infer(runner, feeds, label)

        try:
            returned = function(run)
        except TrtPtqError:
            raise
        except Exception as error:
            raise DataError(f"{label} fails on {path.name}: {type(error).__name__}: {error}") from error
    if not isinstance(returned, dict) or not returned:
        raise DataError(f"{label} returned {returned!r:.60}: it must return a dict of metrics, name to number")
    try:
        metrics = {str(name): float(value) for name, value in returned.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{label} returned a metric that is not a number: {error}") from error
    if finite:
        require_finite(metrics, label, path)
    if not ran:
        raise DataError(f"{label} does not run the model: it must call run(feeds), and judge what that returns")
    return metrics


def evaluate_reference(path: Path, function: Evaluate, label: str) -> Metrics:
    """Metrics of the model that others are judged against.

    Raises:
        DataError: see `evaluate_model`; or all metrics are 0, and higher were better: all is lost already.
    """
    metrics = evaluate_model(path, function, label)
    if not any(value or name.endswith(LOWER_IS_BETTER) for name, value in metrics.items()):
        raise DataError(
            f"{label}: metric {next(iter(metrics))!r} of {path.name} is 0, so nothing could be lost: is the metric "
            f"right, and its data? (where lower is better, the name must end in {LOWER_IS_BETTER})"
        )
    return metrics


def require_finite(metrics: Metrics, label: str, path: Path) -> None:
    """Make sure that all metrics of the model at `path` are finite.

    Raises:
        DataError: with the first that is not.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise DataError(f"{label}: metric {name!r} of {path.name} is {value}")


def metric_losses(reference: Metrics, candidate: Metrics) -> dict[str, float]:
    """Relative loss by metric.

    Raises:
        DataError: the two were not judged by the same metrics.
    """
    if reference.keys() != candidate.keys():
        told = ", ".join(sorted(reference.keys() ^ candidate.keys()))
        raise DataError(f"the evaluation does not return the same metrics for both models: {told} is of one only")
    return {name: relative_loss(name, reference[name], candidate[name]) for name in reference}
