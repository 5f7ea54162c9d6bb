"""Calibration by TensorRT itself, for `trt-ptq build --implicit --data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_ptq.calibrators.tensorrt.batch import BatchCalibrator, EntropyCalibrator, MinMaxCalibrator
from trt_ptq.cli import console
from trt_ptq.engines.spec import MakeCalibrator
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import BatchSource

CALIBRATORS: dict[str, Callable[..., BatchCalibrator]] = {"entropy": EntropyCalibrator, "minmax": MinMaxCalibrator}


def calibrator_factory(name: str, model: Model, batches: BatchSource, cache: Path | None) -> MakeCalibrator:
    """A function that creates the calibrator `name` for a network; it shows progress and uses `cache`.

    Raises:
        UsageError: there is no calibrator with that name.
    """
    if name not in CALIBRATORS:
        raise UsageError(
            f"--calibrator must be {' or '.join(CALIBRATORS)}, not {name!r}; for percentile or mse ranges use --table"
        )

    def create(network: Any, profile: Any) -> Any:  # TensorRT's base class, unknown to mypy, completes the protocol
        return CALIBRATORS[name](
            batches, cache, network=network, profile=profile, model=model.identity, progress=console.progress
        )

    return create
