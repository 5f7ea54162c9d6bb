"""Comparing a quantized model or engine with its reference: fidelity, the user's metrics, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trt_ptq.data.checks.input_ranges import InputRanges
from trt_ptq.data.observation import observe
from trt_ptq.evaluation.compare_engines import compare_engines
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.evaluation.fidelity import OutputFidelity
from trt_ptq.evaluation.metrics import Metrics, UserMetric
from trt_ptq.evaluation.runners.runner import is_engine
from trt_ptq.evaluation.verdict import EXCELLENT_BELOW, Verdict, grade, grade_fidelity
from trt_ptq.types import BatchSource, ProgressCallback, no_progress


@dataclass(frozen=True)
class Comparison:
    """How a candidate compares with its reference.

    Attributes:
        reference: file name of the reference.
        candidate: file name of the candidate.
        samples: number of samples that both ran on.
        outputs: fidelity by output name.
        losses: relative loss by metric, as a fraction; without a user's metric, `OutputFidelity.error` by output.
        verdict: the grade by the largest of these, and whether that is within `max_drop`.
        reference_metrics: the user's metrics of the reference; empty without any.
        candidate_metrics: those of the candidate.
        layers: fidelity of inner tensors of an engine to its ONNX model; empty unless asked for. See
            `layer_differences`.
        warnings: what the figures do not cover, a sentence each.
    """

    reference: str
    candidate: str
    samples: int
    outputs: dict[str, OutputFidelity]
    losses: dict[str, float]
    verdict: Verdict
    reference_metrics: Metrics = field(default_factory=dict)
    candidate_metrics: Metrics = field(default_factory=dict)
    layers: dict[str, OutputFidelity] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the verdict is within the threshold."""
        return self.verdict.passed

    def __str__(self) -> str:
        return f"{self.candidate}: {self.verdict.sentence(self.reference)}"


def compare_with_reference(
    reference: Path,
    candidate: Path,
    source: BatchSource,
    metric: UserMetric | None = None,
    max_drop: float = EXCELLENT_BELOW,
    progress: ProgressCallback = no_progress,
) -> Comparison:
    """Compare a candidate with its reference: ONNX models run on the CPU, engines on the GPU.

    Args:
        reference: the float model, or another ONNX model or engine.
        candidate: an ONNX model, quantized by any tool or not, with the same inputs and outputs; or an engine.
        source: the batches that both run on.
        metric: the user's metrics, which the verdict is on; without it, on the fidelity of the outputs.
        max_drop: largest relative loss of a metric, or largest `OutputFidelity.error`, as a fraction.
        progress: shows progress over the batches.

    Raises:
        ModelError, EngineError, DataError: a model cannot be loaded, run, compared or evaluated.
    """
    ranges = InputRanges()
    if metric is not None:
        source = observe(source, ranges)
    if is_engine(reference) and is_engine(candidate):
        fidelity = compare_engines(reference, candidate, source, progress)
    else:
        fidelity = compare_models(reference, candidate, source, progress)
    warnings = fidelity.warnings()
    reference_metrics: Metrics = {}
    candidate_metrics: Metrics = {}
    if metric is None:
        losses = fidelity.errors()
        verdict = grade_fidelity(fidelity.outputs, max_drop)
    else:
        reference_metrics, candidate_metrics = metric.evaluate_reference(reference), metric.evaluate(candidate)
        losses = metric.losses(reference_metrics, candidate_metrics)
        verdict = grade(losses, max_drop)
        warnings += metric.warnings(reference_metrics, candidate_metrics, candidate.name)
        warnings += metric.input_warnings(ranges, "`data`")
    warnings += verdict.warnings("`data`")
    return Comparison(
        reference=reference.name,
        candidate=fidelity.candidate,
        samples=fidelity.samples,
        outputs=fidelity.outputs,
        losses=losses,
        verdict=verdict,
        reference_metrics=reference_metrics,
        candidate_metrics=candidate_metrics,
        warnings=tuple(warnings),
    )
