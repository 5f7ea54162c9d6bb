"""Batches are read back, by a genuine CUDA driver, from the device pointers that TensorRT would get.

NVIDIA's genuine Python bindings call our stand-in libnvinfer, which copies each batch from the device.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.calibrators.tensorrt.builds.building import batches
from tests.calibrators.tensorrt.builds.read_back import NUM_BATCHES
from tests.calibrators.tensorrt.builds.tables import cache_text, header
from tests.standins import packages
from tests.standins.libraries import StandinUnavailableError, build
from trt_ptq._internal.hardware.cuda import gpu_name

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(gpu_name() is None, reason="no NVIDIA GPU here")]
ROOT = Path(__file__).parents[3]
LATEST = packages.TENSORRT_VERSIONS[-1]
MODULES = {"PycudaBuffers": "pycuda", "CudaBindingsBuffers": "cuda.bindings", "TorchBuffers": "torch"}


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def torch_has_cuda() -> bool:
    return bool(pytest.importorskip("torch").cuda.is_available())


@pytest.mark.parametrize("buffers", ["default", *MODULES])
def test_the_device_pointers_hold_the_batches(buffers: str, tmp_path: Path) -> None:
    if buffers in MODULES and not is_installed(MODULES[buffers]):
        pytest.skip(f"{MODULES[buffers]} is not installed here")
    if buffers == "TorchBuffers" and not torch_has_cuda():
        pytest.skip("torch has no CUDA device here")
    try:
        standins, bindings = build(), packages.tensorrt_bindings(LATEST)
    except StandinUnavailableError as error:
        pytest.skip(str(error))
    environment = standins.environment([bindings], genuine_driver=True)
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(ROOT)])
    cache = tmp_path / "model.cache"
    command = [sys.executable, "-m", "tests.calibrators.tensorrt.builds.read_back", buffers, str(cache)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["raised"] is None
    assert outcome["plans"][0]["batches"] == NUM_BATCHES
    assert cache.read_text() == cache_text(header(LATEST, "MinMaxCalibration"), batches(NUM_BATCHES))
