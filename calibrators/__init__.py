"""From activations to calibration tables, and from calibration data to TensorRT.

The calibrator classes are loaded on first use: importing this package is cheap, and TensorRT is needed only when a
calibrator is created.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trt_ptq.calibrators.tensorrt.batch import EntropyCalibrator as EntropyCalibrator
    from trt_ptq.calibrators.tensorrt.batch import MinMaxCalibrator as MinMaxCalibrator
    from trt_ptq.calibrators.tensorrt.calibration_warning import CalibrationFailedWarning as CalibrationFailedWarning
    from trt_ptq.calibrators.tensorrt.calibration_warning import CalibrationWarning as CalibrationWarning
    from trt_ptq.calibrators.tensorrt.device_memory.cuda_bindings_buffers import (
        CudaBindingsBuffers as CudaBindingsBuffers,
    )
    from trt_ptq.calibrators.tensorrt.device_memory.pycuda_buffers import PycudaBuffers as PycudaBuffers
    from trt_ptq.calibrators.tensorrt.device_memory.torch_buffers import TorchBuffers as TorchBuffers
    from trt_ptq.calibrators.tensorrt.percentile_calibrator import PercentileCalibrator as PercentileCalibrator
    from trt_ptq.calibrators.tensorrt.table_calibrator import TableCalibrator as TableCalibrator

_HOME = {
    "CalibrationFailedWarning": "calibration_warning",
    "CalibrationWarning": "calibration_warning",
    "CudaBindingsBuffers": "device_memory.cuda_bindings_buffers",
    "EntropyCalibrator": "batch",
    "MinMaxCalibrator": "batch",
    "PercentileCalibrator": "percentile_calibrator",
    "PycudaBuffers": "device_memory.pycuda_buffers",
    "TableCalibrator": "table_calibrator",
    "TorchBuffers": "device_memory.torch_buffers",
}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.tensorrt.{_HOME[name]}"), name)
