"""The memory limit counts what is in use, not what was freed long ago."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trt_ptq._internal.hardware import process_memory
from trt_ptq._internal.hardware.process_memory import PeakMemory, return_free_memory
from trt_ptq.errors import UsageError

_BLOCK = 256 * 2**20
_SLACK = 64 * 2**20

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux_only
def test_memory_freed_before_does_not_count() -> None:
    before = PeakMemory().peak_bytes()
    block = np.ones(_BLOCK, np.uint8)
    del block
    assert PeakMemory().peak_bytes() < before + _SLACK


@linux_only
def test_memory_freed_meanwhile_counts() -> None:
    measured = PeakMemory()
    before = measured.peak_bytes()
    block = np.ones(_BLOCK, np.uint8)
    del block
    assert measured.peak_bytes() >= before + _BLOCK - _SLACK


@linux_only
def test_where_the_peak_cannot_be_reset_the_current_memory_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 900000 kB\nVmRSS:\t 100000 kB\n")
    (tmp_path / "clear_refs").mkdir()  # writing to it fails
    monkeypatch.setattr(process_memory, "_PROC", tmp_path)
    assert PeakMemory().peak_bytes() == 100_000 * 1024


def test_macos_reports_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = iter([300_000_000, 471_000_000])
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=next(usage)))
    monkeypatch.setitem(sys.modules, "resource", fake)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert PeakMemory().peak_bytes() == 471_000_000


def test_windows_is_refused_by_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it raises ImportError
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="`memory_limit` is not supported on win32"):
        PeakMemory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory, or keep it")
def test_freed_memory_is_returned() -> None:
    pieces = [bytearray(50_000) for _ in range(_BLOCK // 50_000)]
    held = PeakMemory().peak_bytes()
    last = bytearray(50_000)  # behind the pieces, so that the heap cannot shrink by itself
    del pieces
    return_free_memory()
    assert PeakMemory().peak_bytes() < held - _BLOCK + _SLACK
    assert last
