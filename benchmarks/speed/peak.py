"""The largest memory that this process has had."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Bytes resident at most since the process began, as Linux counts them (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")
