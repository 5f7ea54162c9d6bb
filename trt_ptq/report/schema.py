"""What a quantization run found out: report.json, and all that report.html shows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibration.convergence import Stability, Trajectory
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.errors import StatisticsError
from trt_ptq.evaluation.compare_engines import MeasuredEngine
from trt_ptq.evaluation.fidelity import OutputFidelity
from trt_ptq.evaluation.verdict import Verdict
from trt_ptq.fp16.convert import HighPrecision
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.provenance import DataFingerprint, ModelIdentity
from trt_ptq.qdq.plan import NodePlan
from trt_ptq.tuning.tuner import Trial

BARS = 64


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class TensorRow(_Part):
    """One calibrated tensor. `clipped` is the share of its values beyond `amax`; `asymmetric_*` are for analysis.

    `bars` are its magnitudes counted in 64 equal bins up to `bars_end`.
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


class ModelResult(_Part):
    """One ONNX model that was compared with FP32 (fidelity by output) and, with `--eval`, judged (metrics)."""

    precision: Literal["fp32", "fp16", "int8"]
    file: str
    size_bytes: int
    fidelity: dict[str, OutputFidelity]
    metrics: dict[str, float]


class Report(_Part):
    """One run of `trt-ptq quantize`.

    `passes` over the data filled the statistics; `trajectory` is how the ranges settled as samples were added,
    `stability` what `--until-stable` made of it. `int8_fraction_of_macs`: how much of the multiply-accumulates the INT8
    nodes do, 0 to 1; None where shapes follow from values. `high_precision` is that of what is not INT8, but for the
    `fp32_nodes`, which stay in FP32. `trials` led to the INT8 model. `measured`
    are engines that were run on the GPU, empty where there is none.
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
    method: str
    tensors: list[TensorRow]
    nodes: list[NodePlan]
    int8_fraction_of_macs: float | None = None
    high_precision: HighPrecision = "fp32"
    fp32_nodes: list[Fp32Node] = []
    trials: list[Trial]
    models: list[ModelResult]
    engines: list[EngineManifest]
    measured: list[MeasuredEngine] = []
    verdict: Verdict
    warnings: list[str]

    @property
    def num_int8_nodes(self) -> int:
        """Nodes that run in INT8."""
        return sum(node.is_int8 for node in self.nodes)

    @property
    def int8_summary(self) -> str:
        """How many nodes, and how much of the arithmetic, in words."""
        nodes = f"{self.num_int8_nodes} of {len(self.nodes)} candidate nodes run in INT8"
        return (
            nodes if self.int8_fraction_of_macs is None else f"{nodes} ({self.int8_fraction_of_macs:.1%} of the MACs)"
        )


def write_report(report: Report, path: Path) -> None:
    """Write report.json."""
    write_atomic(path, report.model_dump_json(indent=1) + "\n")


def read_report(path: Path) -> Report:
    """Read report.json.

    Raises:
        StatisticsError: there is none, or it is damaged.
    """
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StatisticsError(f"cannot read {path}: {error.strerror}; `trt-ptq quantize` makes one") from error
    except (ValidationError, ValueError) as error:
        raise StatisticsError(f"{path}: not a report of this version") from error
