"""Markers for what the tests of this folder need: an NVIDIA GPU, TensorRT, and the CUDA runtime for Polygraphy."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from trt_ptq._internal.hardware.cuda import gpu_name


def _missing() -> str | None:
    if gpu_name() is None:
        return "no NVIDIA GPU here"
    try:
        importlib.import_module("tensorrt")
    except ImportError as error:
        return f'no TensorRT here ({error}): pip install "trt-ptq[trt10]" or "trt-ptq[trt11]"'
    return None


MISSING = _missing()
TENSORRT: Any = None if MISSING else importlib.import_module("tensorrt")
HAS_CALIBRATORS = hasattr(TENSORRT, "IInt8EntropyCalibrator2")

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]
IMPLICIT = pytest.mark.skipif(
    MISSING is None and not HAS_CALIBRATORS, reason="TensorRT 11 and later have no calibrators: needs TensorRT 10"
)
WITHOUT_CALIBRATORS = pytest.mark.skipif(MISSING is None and HAS_CALIBRATORS, reason="needs TensorRT 11 or later")
EXPLICIT = pytest.mark.skipif(
    MISSING is None and not hasattr(TENSORRT.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"),
    reason="needs TensorRT 10 or later, for strongly typed networks",
)
