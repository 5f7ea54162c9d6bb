"""Calibration by TensorRT itself, for `trt-ptq build --implicit --data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_ptq.calibrators.tensorrt.batch import BatchCalibrator, EntropyCalibrator, MinMaxCalibrator
from trt_ptq.cli import console
from trt_ptq.engines.spec import MakeCalibrator
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import BatchSource

CALIBRATORS: dict[str, Callable[..., BatchCalibrator]] = {"entropy": EntropyCalibrator, "minmax": MinMaxCalibrator}


def calibrator_factory(name: str, model: Model, batches: BatchSource, cache: Path | None) -> MakeCalibrator:
    """Return a function that creates the calibrator `name` for a network; it shows progress and keeps `cache`."""

    def create(network: Any, profile: Any) -> Any:  # a subclass of TensorRT's calibrator
        return CALIBRATORS[name](
            batches, cache, network=network, profile=profile, model=model.identity, progress=console.progress
        )

    return create
