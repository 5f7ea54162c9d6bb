"""The objective function of tuning: how much accuracy a candidate loses against the float model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from trt_ptq.engines.spec import Precision
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.evaluation.metrics import Metrics, UserMetric
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.onnx_runner import temporary_model_file
from trt_ptq.types import BatchSource

CANDIDATE = "candidate.onnx"  # what messages call it


@dataclass(frozen=True)
class Score:
    """The accuracy of a candidate.

    Attributes:
        losses: relative loss against the reference by metric; without a user's metric, `OutputFidelity.error` by
            output.
        metrics: the user's metrics behind them; empty without any.
    """

    losses: dict[str, float]
    metrics: Metrics

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

    @cached_property
    def baseline(self) -> Metrics:
        """The metrics of the reference; empty without a user's metric."""
        return {} if self.metric is None else self.metric.evaluate_reference(self.reference.path, "select")

    def evaluate(self, candidate: ir.Model) -> Score:
        """Score a candidate on ONNX Runtime's CPU; a metric that is NaN or infinite counts as an infinite loss.

        Raises:
            DataError, ModelError: see `UserMetric.evaluate` and `compare_models`.
        """
        with temporary_model_file(candidate, CANDIDATE) as path:
            if self.metric is None:
                return Score(compare_models(self.reference, [path], self.source)[0].errors(), {})
            baseline = self.baseline
            metrics = self.metric.evaluate(path, "select", finite=False)
        losses = self.metric.losses(baseline, metrics)
        return Score(losses | {name: math.inf for name in losses if not math.isfinite(metrics[name])}, metrics)

    def metrics_for_verdict(self, int8: Metrics | None) -> dict[Precision, Metrics]:
        """The metrics that the verdict need not compute again: none where the metric has a split of its own for it.

        Args:
            int8: the metrics of the INT8 model by this objective; None if it scored that with another rest.
        """
        if self.metric is None or self.metric.takes_split:
            return {}
        return {"fp32": self.baseline} if int8 is None else {"fp32": self.baseline, "int8": int8}
