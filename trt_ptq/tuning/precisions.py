"""FP16 and INT8 models judged against FP32: fidelity of outputs, and the user's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trt_ptq.engines.spec import Precision
from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.compare_models import Comparison, compare_models, fidelity_losses, fidelity_warnings
from trt_ptq.evaluation.metrics import Metrics, evaluate_model, metric_losses
from trt_ptq.evaluation.onnx_runner import onnx_runner
from trt_ptq.tuning.objective import Objective
from trt_ptq.types import BatchSource, ProgressCallback, no_progress


@dataclass(frozen=True)
class PrecisionComparison:
    """Fidelity to FP32, metrics (none without a metric) and what could not be judged, by precision."""

    comparisons: dict[Precision, Comparison]
    metrics: dict[Precision, Metrics]
    runnable: dict[Precision, Path]
    warnings: tuple[str, ...]

    @property
    def losses(self) -> dict[str, float]:
        """Of INT8 against FP32: of the metrics, or without any of fidelity."""
        if self.metrics:
            return metric_losses(self.metrics["fp32"], self.metrics["int8"])
        return fidelity_losses(self.comparisons["int8"])


def evaluate_precisions(
    files: Mapping[Precision, Path],
    source: BatchSource,
    judge: Objective,
    int8: Metrics,
    progress: ProgressCallback = no_progress,
) -> PrecisionComparison:
    """Compare the other precisions with "fp32" over `source`, and evaluate float16 by the metric of `judge`.

    `int8` are the metrics of the INT8 model, which are known already; empty without a metric. Float16 is a baseline:
    where it cannot be run or evaluated that is a warning.

    Raises:
        ModelError, DataError: FP32 or INT8 cannot be run, compared or evaluated.
    """
    warnings: list[str] = []
    runnable = _runnable(files, warnings)
    others = [precision for precision in runnable if precision != "fp32"]
    compared = compare_models(files["fp32"], [files[precision] for precision in others], source, progress)
    for one in compared:
        warnings += fidelity_warnings(one)
    metrics: dict[Precision, Metrics] = {}
    if judge.evaluate is not None:
        metrics = {"fp32": judge.baseline, "int8": int8}
        try:
            if "fp16" in runnable:
                metrics["fp16"] = evaluate_model(runnable["fp16"], judge.evaluate, judge.eval_name)
        except DataError as error:
            warnings.append(f"float16 was not judged by the metric: {error}")
    return PrecisionComparison(dict(zip(others, compared, strict=True)), metrics, runnable, tuple(warnings))


def _runnable(files: Mapping[Precision, Path], warnings: list[str]) -> dict[Precision, Path]:
    """`files` without a float16 model that ONNX Runtime cannot load."""
    try:
        with onnx_runner(files["fp16"]):
            return dict(files)
    except ModelError as error:
        warnings.append(f"float16 was not judged: {error}")
    return {precision: path for precision, path in files.items() if precision != "fp16"}
