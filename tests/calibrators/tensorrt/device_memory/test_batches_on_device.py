"""Stand-in: batches are read back from the device pointers, as tests/gpu/cuda does with a genuine driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.calibrators.tensorrt.builds.building import batches
from tests.calibrators.tensorrt.builds.leaks import assert_nothing_leaked
from tests.calibrators.tensorrt.builds.read_back import NUM_BATCHES
from tests.calibrators.tensorrt.builds.tables import cache_text, header
from tests.calibrators.tensorrt.conftest import LATEST, Play

READ_BACK = """
from tests.calibrators.tensorrt.builds.read_back import read_back
tell(**read_back("{buffers}", "model.cache"))
"""


@pytest.mark.parametrize(
    ("memory", "buffers"),
    [
        ("driver", "default"),
        ("cuda-bindings", "CudaBindingsBuffers"),
        pytest.param("pycuda", "PycudaBuffers", marks=pytest.mark.slow),
    ],
)
def test_what_tensorrt_copies_from_the_pointers_is_what_the_data_held(
    play: Play, tmp_path: Path, memory: str, buffers: str
) -> None:
    outcome = play(READ_BACK.format(buffers=buffers), memory=memory, copy_from_device=True, defer=True)
    assert outcome["raised"] is None
    assert outcome["plans"][0]["batches"] == NUM_BATCHES
    expected = cache_text(header(LATEST, "MinMaxCalibration"), batches(NUM_BATCHES))
    assert (tmp_path / "model.cache").read_text() == expected
    assert outcome["counters"]["copies_to_host"] == 2 * NUM_BATCHES
    assert_nothing_leaked(outcome)


def test_too_little_memory_is_named_by_cuda_bindings(play: Play) -> None:
    outcome = play(READ_BACK.format(buffers="CudaBindingsBuffers"), memory="cuda-bindings", limit_bytes=300)
    assert "out of memory for calibration batches (cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY)" in outcome["raised"]
    assert "28 of 300 bytes are free" in outcome["raised"]
    assert_nothing_leaked(outcome)


def test_a_machine_without_a_device_is_a_plain_error_with_cuda_bindings(play: Play) -> None:
    outcome = play(READ_BACK.format(buffers="CudaBindingsBuffers"), memory="cuda-bindings", no_device=True)
    assert outcome["raised"].startswith(
        "EngineError: no CUDA device to calibrate on (cuInit: CUDA_ERROR_NO_DEVICE (100))"
    )


def test_torch_that_finds_no_gpu_is_a_plain_error(play: Play) -> None:
    pytest.importorskip("torch")
    outcome = play(READ_BACK.format(buffers="TorchBuffers"))
    assert outcome["raised"].startswith("EngineError: no CUDA device to calibrate on (torch.cuda.is_available() is f")
