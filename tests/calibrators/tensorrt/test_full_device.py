"""Stand-in: a device that is full before the first batch is told plainly, and nothing of it is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.calibrators.tensorrt.conftest import Play
from trt_ptq.calibrators.tensorrt import torch_buffers
from trt_ptq.calibrators.tensorrt.torch_buffers import TorchBuffers
from trt_ptq.errors import EngineError

CUDA_BINDINGS = """
from cuda.bindings import driver
driver.{function} = lambda *_: (driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY, None)
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
def test_cuda_bindings_without_memory_to_start(play: Play, function: str) -> None:
    outcome = play(CUDA_BINDINGS.format(function=function))
    assert outcome["raised"].startswith(
        f"EngineError: no memory on the CUDA device even to start ({function}: CUDA_ERROR_OUT_OF_MEMORY)"
    )
    assert outcome["counters"]["primary_context_users"] == 0


@pytest.mark.slow
def test_pycuda_without_memory_to_start(play: Play) -> None:
    outcome = play(PYCUDA, memory="pycuda")
    assert outcome["raised"].startswith("EngineError: no memory on the CUDA device even to start (cuStreamCreate")
    assert outcome["counters"]["primary_context_users"] == 0


class FullTorch:
    """What TorchBuffers asks of torch, where pinned memory is short."""

    uint8 = "uint8"
    version = SimpleNamespace(cuda="12.9")

    def __init__(self) -> None:
        self.on: list[int] = []
        self.cuda = SimpleNamespace(
            is_available=lambda: True, current_device=lambda: 1, device=self._enter, Stream=lambda _device: object()
        )

    def device(self, _kind: str, index: int) -> int:
        return index

    @contextlib.contextmanager
    def _enter(self, device: int) -> Iterator[None]:
        self.on.append(device)
        yield

    def empty(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")


@pytest.fixture
def full_torch(monkeypatch: pytest.MonkeyPatch) -> FullTorch:
    torch = FullTorch()
    monkeypatch.setattr(torch_buffers, "require", lambda *_, **__: torch)
    return torch


def test_torch_without_pinned_memory_is_out_of_memory_on_the_device_that_was_current(full_torch: FullTorch) -> None:
    with pytest.raises(MemoryError, match=r"^CUDA error: out of memory$"):
        TorchBuffers().allocate_pinned(8)
    assert set(full_torch.on) == {1}


def test_torch_that_cannot_copy_is_an_engine_error(full_torch: FullTorch) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    full_torch.empty = failing  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="illegal memory access"):
        TorchBuffers().allocate(8)
