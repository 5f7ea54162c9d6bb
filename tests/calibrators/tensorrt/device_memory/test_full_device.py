"""Stand-in: a device that is full before the first batch is a plain error, and nothing stays allocated."""

from __future__ import annotations

import pytest

from tests.calibrators.tensorrt.conftest import Play

DRIVER = """
from trt_ptq._internal.hardware import cuda

call = cuda.Driver.call

def full(self, function, *arguments):
    if function == "{function}":
        raise cuda.DeviceMemoryError(function + ": CUDA_ERROR_OUT_OF_MEMORY (2)")
    call(self, function, *arguments)

cuda.Driver.call = full
build = Build()
tell(**build_with(EntropyCalibrator(batches(2), **build.known), build))
"""
PYCUDA = """
import pycuda.driver as driver

def full(*_):
    raise driver.MemoryError("cuStreamCreate failed: out of memory")

driver.Stream = full
build = Build()
tell(**build_with(EntropyCalibrator(batches(2), **build.known), build))
"""


@pytest.mark.parametrize("function", ["cuDevicePrimaryCtxRetain", "cuStreamCreate"])
def test_driver_without_memory_to_start(play: Play, function: str) -> None:
    outcome = play(DRIVER.format(function=function))
    assert outcome["raised"].startswith(
        f"EngineError: the CUDA device has no memory left even to start ({function}: CUDA_ERROR_OUT_OF_MEMORY (2))"
    )
    assert outcome["counters"]["primary_context_users"] == 0


@pytest.mark.slow
def test_pycuda_without_memory_to_start(play: Play) -> None:
    outcome = play(PYCUDA, memory="pycuda")
    assert outcome["raised"].startswith("EngineError: the CUDA device has no memory left even to start (cuStreamCreate")
    assert outcome["counters"]["primary_context_users"] == 0
