"""How much a candidate loses against the float model: what decides whether a change of it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from trt_ptq.evaluation.compare_models import compare_models, fidelity_losses
from trt_ptq.evaluation.metrics import Evaluate, Metrics, evaluate_model, evaluate_reference, metric_losses
from trt_ptq.evaluation.onnx_runner import temporary_model_file
from trt_ptq.types import BatchSource

CANDIDATE = "candidate.onnx"  # what messages call it


@dataclass(frozen=True)
class Score:
    """`losses` against the reference, and the user's `metrics` that they come from (none where it is fidelity)."""

    losses: dict[str, float]
    metrics: Metrics

    @property
    def loss(self) -> float:
        """See `largest_loss`."""
        return largest_loss(self.losses)


def largest_loss(losses: Mapping[str, float]) -> float:
    """Infinite if one is NaN, 0 if there is none."""
    return math.inf if any(map(math.isnan, losses.values())) else max(losses.values(), default=0.0)


@dataclass(frozen=True)
class Objective:
    """Judges candidates by the user's metric, or without one by fidelity to `reference` on `source`."""

    reference: Path
    source: BatchSource
    evaluate: Evaluate | None = None
    eval_name: str = ""

    @cached_property
    def baseline(self) -> Metrics:
        """Metrics of the reference; empty without a metric."""
        return {} if self.evaluate is None else evaluate_reference(self.reference, self.evaluate, self.eval_name)

    def judge(self, candidate: ir.Model) -> Score:
        """What `candidate` loses, on ONNX Runtime's CPU: all, where a metric of it is NaN or infinite.

        Raises:
            DataError, ModelError: see `evaluate_model` and `compare_models`.
        """
        with temporary_model_file(candidate, CANDIDATE) as path:
            if self.evaluate is None:
                return Score(fidelity_losses(compare_models(self.reference, [path], self.source)[0]), {})
            baseline = self.baseline
            metrics = evaluate_model(path, self.evaluate, self.eval_name, finite=False)
        losses = metric_losses(baseline, metrics)
        lost = {name: loss if math.isfinite(metrics[name]) else math.inf for name, loss in losses.items()}
        return Score(lost, metrics)
