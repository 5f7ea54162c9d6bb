"""FP16 and INT8 models compared with FP32: fidelity of the outputs, and the user's metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trt_ptq._internal.hardware.process_memory import return_free_memory
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import DataError, EngineError, ModelError
from trt_ptq.evaluation.compare_models import ModelFidelity, compare_runner
from trt_ptq.evaluation.metrics import Metrics, UserMetric
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.runner import Runner, open_runner
from trt_ptq.evaluation.verdict import Verdict, grade, grade_fidelity
from trt_ptq.types import BatchSource, ProgressCallback, no_progress


@dataclass(frozen=True)
class PrecisionComparison:
    """The models of several precisions, compared with FP32.

    Attributes:
        fidelity: fidelity to FP32, by precision.
        metrics: the user's metrics by precision; empty without a metric.
        losses: relative loss of INT8 against FP32 by metric, as fractions; empty without a metric.
        warnings: what could not be evaluated, or is suspicious, a sentence each.
    """

    fidelity: dict[Precision, ModelFidelity]
    metrics: dict[Precision, Metrics]
    losses: dict[str, float]
    warnings: tuple[str, ...]

    def grade(self, max_drop: float) -> Verdict:
        """The verdict on INT8: by the metrics, without any by the fidelity of its outputs.

        Raises:
            DataError: see `grade` and `grade_fidelity`.
        """
        return grade(self.losses, max_drop) if self.losses else grade_fidelity(self.fidelity["int8"].outputs, max_drop)


def evaluate_precisions(
    files: Mapping[Precision, Path],
    source: BatchSource,
    metric: UserMetric | None = None,
    known_metrics: Mapping[Precision, Metrics] | None = None,
    progress: ProgressCallback = no_progress,
    reference: Reference | None = None,
    look: Callable[[Precision, Runner], None] | None = None,
) -> PrecisionComparison:
    """Compare FP16 and INT8 models or engines with FP32, and compute the user's metrics of all of them.

    Each is loaded once, one after the other, if the outputs of FP32 can be stored. FP16 is a baseline: where it cannot
    be run or evaluated, that is a warning.

    Args:
        files: the ONNX files or engines of "fp32" and "int8", and of "fp16" if there is one.
        source: the batches that all run on.
        metric: the user's metrics, computed on the split "test".
        known_metrics: metrics that need not be computed again.
        progress: shows progress over the batches.
        reference: the FP32 model, if its outputs for some batches are known; else the file of "fp32".
        look: called with each model while it is loaded, FP32 first, for what is to be known of it beside that.

    Raises:
        ModelError, EngineError, DataError: FP32 or INT8 cannot be run, compared or evaluated.
        UsageError: see `UserMetric.check_reference`.
    """
    against = reference or Reference(files["fp32"])
    fidelity: dict[Precision, ModelFidelity] = {}
    metrics = dict(known_metrics or {})
    warnings: list[str] = []

    def evaluate(precision: Precision) -> None:
        return_free_memory()  # what the model before had packed: 1 GB for one of 540 MB
        path = files[precision]
        with open_runner(path) as runner:
            if precision == "fp32":
                against.store_outputs(source, runner)
            else:
                fidelity[precision] = compare_runner(against, runner, path, source, progress)
            if look is not None:
                look(precision, runner)
            if metric is None or precision in metrics:
                return
            try:
                metrics[precision] = metric.evaluate_runner(runner, path)
            except (DataError, EngineError) as error:
                if precision != "fp16":
                    raise
                warnings.append(f"the metrics of FP16 were not computed: {error}")

    if look is not None or (metric is not None and "fp32" not in metrics):
        evaluate("fp32")
    if metric is not None:
        metric.check_reference(metrics["fp32"], files["fp32"])
    evaluate("int8")
    if "fp16" in files:
        try:
            evaluate("fp16")
        except (DataError, EngineError, ModelError) as error:
            warnings.append(f"FP16 was not evaluated: {error}")
    for result in fidelity.values():
        warnings += result.warnings()
    if metric is None:
        fidelity["int8"].compared()
        return PrecisionComparison(fidelity, {}, {}, tuple(warnings))
    warnings += metric.warnings(metrics["fp32"], metrics["int8"], files["int8"].name)
    losses = metric.losses(metrics["fp32"], metrics["int8"])
    return PrecisionComparison(fidelity, metrics, losses, tuple(warnings))
