"""Stand-in: device memory by our driver wrapper and by the genuine pycuda, with too little memory, or no device."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.calibrators.tensorrt.builds.building import batches
from tests.calibrators.tensorrt.builds.leaks import assert_nothing_leaked
from tests.calibrators.tensorrt.builds.tables import cache_text, header
from tests.calibrators.tensorrt.conftest import Play


def test_out_of_memory_names_the_required_and_the_free_memory(play: Play, tmp_path: Path) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), 'model.cache', **build.known), build))",
        limit_bytes=300,
    )
    assert "needs 2 x (image 192 bytes, mask 80 bytes) = 544 bytes" in outcome["raised"]
    assert "28 of 300 bytes are free" in outcome["raised"]
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_machine_without_a_device_is_a_plain_error(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), **build.known), build))", no_device=True
    )
    assert outcome["raised"].startswith(
        "EngineError: no CUDA device to calibrate on (cuInit: CUDA_ERROR_NO_DEVICE (100))"
    )


def test_current_context_of_the_caller_is_used_and_left_alone(play: Play) -> None:
    outcome = play(
        """
        from cuda.bindings import driver
        driver.cuInit(0)
        _, context = driver.cuDevicePrimaryCtxRetain(0)
        driver.cuCtxSetCurrent(context)
        build = Build()
        result = build_with(EntropyCalibrator(batches(2), **build.known), build)
        still = int(driver.cuCtxGetCurrent()[1]) == int(context)
        tell(still=still, **result)
        """,
        memory="cuda-bindings",
    )
    assert outcome["still"] is True
    assert outcome["raised"] is None
    assert outcome["counters"]["primary_context_users"] == 1


@pytest.mark.slow
def test_pycuda_is_used_where_it_is_installed_and_leaks_nothing(play: Play, tmp_path: Path, version: str) -> None:
    outcome = play(
        """
        from trt_ptq.calibrators.tensorrt.device_memory.buffers import open_buffers
        buffers = open_buffers()
        kind = type(buffers).__name__
        buffers.close()
        build = Build()
        tell(kind=kind, **build_with(EntropyCalibrator(batches(5), "model.cache", **build.known), build))
        """,
        version=version,
        memory="pycuda",
        defer=True,
    )
    assert outcome["kind"] == "PycudaBuffers"
    assert outcome["raised"] is None
    assert (tmp_path / "model.cache").read_text() == cache_text(header(version), batches(5))
    assert_nothing_leaked(outcome)


@pytest.mark.slow
def test_out_of_memory_in_pycuda_names_the_required_and_the_free_memory(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), **build.known), build))",
        memory="pycuda",
        limit_bytes=300,
    )
    assert "needs 2 x (image 192 bytes, mask 80 bytes) = 544 bytes" in outcome["raised"]
    assert "28 of 300 bytes are free" in outcome["raised"]
    assert_nothing_leaked(outcome)


@pytest.mark.slow
def test_machine_without_a_device_is_a_plain_error_with_pycuda(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), **build.known), build))",
        memory="pycuda",
        no_device=True,
    )
    assert outcome["raised"].startswith("EngineError: no CUDA device to calibrate on (cuInit failed")


@pytest.mark.slow
def test_current_pycuda_context_of_the_caller_is_used_and_left_alone(play: Play) -> None:
    outcome = play(
        """
        import pycuda.driver as driver
        driver.init()
        context = driver.Device(0).make_context()
        build = Build()
        result = build_with(EntropyCalibrator(batches(2), **build.known), build)
        still = driver.Context.get_current() == context
        context.pop()
        tell(still=still, **result)
        """,
        memory="pycuda",
    )
    assert outcome["still"] is True
    assert outcome["raised"] is None
    assert outcome["counters"]["primary_context_users"] == 0
