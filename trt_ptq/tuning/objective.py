"""The objective function of tuning: how much accuracy a candidate loses against the float model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from trt_ptq.engines.spec import Precision
from trt_ptq.errors import DataError
from trt_ptq.evaluation.by_sample.paired_test import PairedTest
from trt_ptq.evaluation.by_sample.sample_scores import SampleScores
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.evaluation.metric_direction import is_lower_better
from trt_ptq.evaluation.metrics import MetricEvaluation, Metrics, UserMetric
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.onnx_runner import CANDIDATE, temporary_model_file
from trt_ptq.types import BatchSource


@dataclass(frozen=True)
class Score:
    """The accuracy of a candidate.

    Attributes:
        losses: relative loss against the reference by metric; without a user's metric, `OutputFidelity.error` by
            output.
        metrics: the user's metrics behind them; empty without any.
        stopped_after: number of samples after which the evaluation was given up; None if it is complete.
    """

    losses: dict[str, float]
    metrics: Metrics
    stopped_after: int | None = None

    @property
    def loss(self) -> float:
        """See `largest_loss`."""
        return largest_loss(self.losses)


def largest_loss(losses: Mapping[str, float]) -> float:
    """The largest loss: infinite if one is NaN, 0 if there is none."""
    return math.inf if any(map(math.isnan, losses.values())) else max(losses.values(), default=0.0)


@dataclass(frozen=True)
class Objective:
    """Scores candidates by the user's metrics, or without any by their fidelity to the reference.

    Attributes:
        reference: the float model.
        source: the batches that fidelity is computed on.
        metric: the user's metrics, computed on the split "select".
    """

    reference: Reference
    source: BatchSource
    metric: UserMetric | None = None

    @property
    def baseline(self) -> Metrics:
        """The metrics of the reference; empty without a user's metric."""
        return self._baseline.metrics

    @cached_property
    def _baseline(self) -> MetricEvaluation:
        if self.metric is None:
            return MetricEvaluation({})
        evaluation = self.metric.evaluate_samples(self.reference.path, "select")
        self.metric.check_reference(evaluation.metrics, self.reference.path)
        return evaluation

    def evaluate(self, candidate: ir.Model, limit: float = math.inf) -> Score:
        """Score a candidate on ONNX Runtime's CPU; a metric that is NaN or infinite counts as an infinite loss.

        Args:
            candidate: the model.
            limit: a loss that is of no use: where a metric yields scores of samples, it is given up when it is almost
                certain to exceed that; see `PairedTest`.

        Raises:
            DataError, ModelError: see `UserMetric.evaluate` and `compare_models`.
        """
        with temporary_model_file(candidate, CANDIDATE) as path:
            if self.metric is None:
                return Score(compare_models(self.reference, path, self.source).errors(), {})
            evaluation = self.metric.evaluate_samples(path, "select", self._stop(limit))
        return self._score(self.metric, evaluation)

    def _stop(self, limit: float) -> Callable[[SampleScores], bool] | None:
        samples, metric = self._baseline.samples, self.metric
        if samples is None or metric is None or math.isinf(limit):
            return None
        lower = {name for name, value in self.baseline.items() if is_lower_better(name, value, metric.lower_is_better)}
        return PairedTest(samples.by_metric(), lower.__contains__, limit, metric.of_mean, metric.in_groups).is_hopeless

    def _score(self, metric: UserMetric, evaluation: MetricEvaluation) -> Score:
        metrics, samples, expected = evaluation.metrics, evaluation.samples, self._baseline.samples
        stopped_after = samples.count if samples is not None and evaluation.stopped else None
        if samples is not None and stopped_after is not None and expected is not None:
            scores, means = expected.by_metric(), samples.means()
            if means.keys() == scores.keys():  # the mean of all samples is estimated by the difference so far
                for name, values in scores.items():
                    means[name] += float(values.mean() - values[:stopped_after].mean())
                metrics = samples.metrics(means)
        elif samples is not None and expected is not None and samples.count != expected.count:
            raise DataError(
                f"{metric.name} yields {expected.count} scores for FP32 and {samples.count} for INT8: it must yield "
                "one for each sample, in the same order for every model"
            )
        losses = metric.losses(self.baseline, metrics)
        infinite = {name: math.inf for name in losses if not math.isfinite(metrics[name])}
        return Score(losses | infinite, metrics, stopped_after)

    def metrics_for_verdict(self, int8: Metrics | None) -> dict[Precision, Metrics]:
        """The metrics that the verdict need not compute again: none where the metric has a split of its own for it.

        Args:
            int8: the metrics of the INT8 model by this objective; None if it scored that with another rest.
        """
        if self.metric is None or self.metric.takes_split:
            return {}
        return {"fp32": self.baseline} if int8 is None else {"fp32": self.baseline, "int8": int8}
