"""The result of a quantization run: the content of report.json, which report.html shows."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_serializer, field_validator

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibration.convergence import Stability, Trajectory
from trt_ptq.choices import CachePrecision, HighPrecision
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.errors import StatisticsError
from trt_ptq.evaluation.compare_engines import MeasuredEngine
from trt_ptq.evaluation.fidelity import OutputFidelity, error_title, output_of
from trt_ptq.evaluation.verdict import Verdict
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.language_models.judging.judgement import LanguageJudgement
from trt_ptq.language_models.judging.metric import PERPLEXITY
from trt_ptq.language_models.length_drift import RangeDrift
from trt_ptq.language_models.outliers import OutlierChannel
from trt_ptq.language_models.text.text_audit import TextAudit
from trt_ptq.provenance import DataFingerprint, ModelIdentity
from trt_ptq.qdq.plan import NodePlan
from trt_ptq.speed.engine_comparison import SpeedComparison
from trt_ptq.tuning.trials import Trial

BARS = 64


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class TensorRow(_Part):
    """One calibrated tensor and its INT8 range.

    `used` says whether the INT8 model uses the range, None without a model; an implicit engine decides by itself.
    `clipped` is the fraction of its values beyond `amax`. `bars` count its magnitudes in 64 equal bins, up to
    `bars_end`.
    The asymmetric scale and zero point are for analysis: TensorRT quantizes symmetrically.
    """

    name: str
    minimum: float
    maximum: float
    amax: float
    scale: float
    clipped: float
    nonfinite: int
    asymmetric_scale: float
    asymmetric_zero_point: int
    bars: list[int]
    bars_end: float
    used: bool | None = None


class ModelResult(_Part):
    """One ONNX model or engine of the run: its size, its fidelity to FP32 by output, and the user's metrics."""

    precision: Literal["fp32", "fp16", "int8"]
    file: str
    size_bytes: int
    fidelity: dict[str, OutputFidelity]
    metrics: dict[str, float]


class Report(_Part):
    """Everything that a run of `quantize` measured and decided.

    Attributes:
        data: where the calibration data came from; `fingerprint` identifies their content.
        passes: passes over the data that calibration took; 0 with statistics of an earlier run, unless a technique
            replaced all of them.
        trajectory: how the ranges settled as samples were added.
        stability: whether the ranges were stable when calibration ended; None without `until_stable`.
        held_out_samples: number of samples that the models were compared on.
        comparison_samples_calibrated_with: number of samples of the comparison that calibration used as well.
        metric_function: the user's metric; empty without one.
        method: the range method.
        nodes: every quantizable node: whether it runs in INT8, and why.
        int8_fraction_of_macs: fraction of the multiply-accumulates that the INT8 nodes compute, 0 to 1; None where
            shapes depend on values.
        kv_cache: precision of the cache of keys and values of a language model.
        high_precision: precision of the nodes that do not run in INT8.
        fp32_nodes: nodes that stay in FP32 because of float16's range, with the cause.
        outliers: outlier channels of a language model, the largest first; empty for other models.
        trials: what tuning tried, in order.
        models: FP32, FP16 and INT8.
        text: the calibration text of a language model; None for other models.
        length_drift: the tensors of a language model whose ranges depend most on the length of the text, the largest
            ratio first; empty for other models, and with statistics of an earlier run.
        language: what a language model predicts beside FP32; None for other models.
        engines: manifests of the engines that were built.
        engine_measurements: engines that were run on a GPU.
        speed: the INT8 engine against the FP16 engine; None if one is missing, or nothing is known of their kernels.
        placement: which layers run in INT8 for speed, by the plans of the builder; empty if none was read.
        require_speedup: how many times as fast as FP16 the INT8 engine must be; None for any.
        evaluated_engines: the engines compared with FP32, if they could run here; the verdict is on them, then.
    """

    tool: str
    model: str
    identity: ModelIdentity
    data: str
    fingerprint: DataFingerprint
    passes: int = 1
    trajectory: Trajectory
    stability: Stability | None = None
    held_out_samples: int
    comparison_samples_calibrated_with: int = 0
    metric_function: str = ""
    method: str
    tensors: list[TensorRow]
    nodes: list[NodePlan]
    int8_fraction_of_macs: float | None = None
    kv_cache: CachePrecision = "float"
    high_precision: HighPrecision = "fp32"
    fp32_nodes: list[Fp32Node] = []
    outliers: list[OutlierChannel] = []
    trials: list[Trial]
    models: list[ModelResult]
    text: TextAudit | None = None
    length_drift: list[RangeDrift] = []
    language: LanguageJudgement | None = None
    engines: list[EngineManifest]
    engine_measurements: list[MeasuredEngine] = []
    speed: SpeedComparison | None = None
    require_speedup: float | None = None
    placement: str = ""
    evaluated_engines: list[ModelResult] = []
    verdict: Verdict
    warnings: list[str]

    @field_validator("verdict", mode="before")
    @classmethod
    def _verdict_without_passed(cls, verdict: Any) -> Any:
        return (
            {name: value for name, value in verdict.items() if name != "passed"} if type(verdict) is dict else verdict
        )

    @field_serializer("verdict")
    def _verdict_with_passed(self, verdict: Verdict) -> dict[str, Any]:
        return {**asdict(verdict), "passed": verdict.passed}

    @property
    def num_int8_nodes(self) -> int:
        """Number of nodes that run in INT8."""
        return sum(node.is_int8 for node in self.nodes)

    @property
    def calibration_data(self) -> str:
        """What the ranges come from."""
        samples = f"{self.fingerprint.samples} samples"
        if not self.passes:
            return f"{samples} of an earlier run"
        return samples if self.text is None else f"{self.text.samples} texts ({samples}, decode steps included)"

    @property
    def comparison_data(self) -> str:
        """What the models were compared on."""
        repeated = self.comparison_samples_calibrated_with
        samples = (
            f"{self.held_out_samples} samples, not all held out: {repeated} were also used for calibration"
            if repeated
            else f"{self.held_out_samples} held-out samples"
        )
        if self.language is not None and self.metric_function == PERPLEXITY:
            text = f"{self.language.texts} held-out texts ({self.language.tokens} tokens) by perplexity"
            return f"{text}; outputs on {samples}, decode steps included"
        return f"{samples}; metrics by {self.metric_function}, on its own data" if self.metric_function else samples

    def loss_title(self, name: str) -> str:
        """The title of the column of a metric of the trials, or of the error of an output, and what that is."""
        output = output_of(name)
        is_scores = any(result.fidelity[output].top1 is not None for result in self.models if output in result.fidelity)
        return error_title(name) + (" (SQNR or top-1)" if is_scores and output != name else "")

    @property
    def verdict_basis(self) -> str:
        """What ran for the verdict: the engine itself, or its emulation."""
        gpus = [engine.gpu for engine in self.engines if engine.precision == "int8" and engine.gpu]
        if self.evaluated_engines and gpus:
            return f"the INT8 engine, on {gpus[0]}"
        if not any(node.is_int8 or node.weight_only for node in self.nodes):
            return f"a model in {self.high_precision.upper()}, as no node runs in INT8"
        return "the INT8 ONNX model, which ONNX Runtime emulates in floating point"

    @property
    def fast_enough(self) -> bool:
        """Whether the INT8 engine meets `require_speedup`."""
        return self.require_speedup is None or (self.speed is not None and self.speed.speedup >= self.require_speedup)

    @property
    def speed_verdict(self) -> str:
        """Whether INT8 pays in time; empty if it is not known and not required."""
        if self.speed is None:
            return "" if self.require_speedup is None else "unknown, as the engines could not be compared: FAILED"
        return self.speed.judged(self.require_speedup)

    @property
    def num_used_ranges(self) -> int:
        """Number of tensors whose ranges the INT8 model uses."""
        return sum(tensor.used is not False for tensor in self.tensors)

    @property
    def int8_summary(self) -> str:
        """How many nodes run in INT8, the fraction of the MACs in them, how many are weight-only, and the cache."""
        return self._nodes_summary + (", keys and values are cached in INT8" if self.kv_cache == "int8" else "")

    @property
    def _nodes_summary(self) -> str:
        weight_only, fraction = sum(node.weight_only for node in self.nodes), self.int8_fraction_of_macs
        of_macs = "" if fraction is None else f" ({fraction:.1%} of the MACs)"
        if weight_only > self.num_int8_nodes:
            weights = f"{weight_only} of {len(self.nodes)} quantizable nodes have INT8 weights only"
            if not self.num_int8_nodes:
                return weights
            if all(node.op_type == "Gather" for node in self.nodes if node.is_int8):
                return f"{weights}, embeddings are stored in INT8"
            return f"{weights}, {self.num_int8_nodes} run in INT8{of_macs}"
        summary = f"{self.num_int8_nodes} of {len(self.nodes)} quantizable nodes run in INT8{of_macs}"
        return f"{summary}, {weight_only} have INT8 weights only" if weight_only else summary


def write_report(report: Report, path: Path) -> None:
    """Write report.json."""
    write_atomic(path, report.model_dump_json(indent=1) + "\n")


def load_report(path: str | os.PathLike[str]) -> Report:
    """Read the report of a run.

    Args:
        path: report.json, or the output directory that it is in.

    Raises:
        StatisticsError: the file is missing or damaged.
    """
    path = Path(path)
    if path.is_dir():
        path /= "report.json"
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StatisticsError(f"cannot read {path}: {error.strerror}; `trt-ptq quantize` writes it") from error
    except (ValidationError, ValueError) as error:
        raise StatisticsError(f"{path}: not a report that this version of trt-ptq can read") from error
