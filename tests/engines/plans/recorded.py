"""Plans in the logs of TensorRT-RTX that tests/files/plans keeps."""

from __future__ import annotations

import gzip
from pathlib import Path

from trt_ptq.engines.plans.engine_plan import EnginePlan

FILES = Path(__file__).parents[2] / "files" / "plans"
MODELS = ("recogniser", "detector", "magika", "minilm", "resnet50")


def recorded_log(model: str, precision: str) -> str:
    """The builder's list of kernels, as it was logged."""
    return gzip.decompress((FILES / f"{model}.{precision}.log.gz").read_bytes()).decode()


def recorded_plan(model: str, precision: str) -> EnginePlan:
    """The plan in that log."""
    return EnginePlan.from_rtx_log(recorded_log(model, precision), "1.7.1.116")
