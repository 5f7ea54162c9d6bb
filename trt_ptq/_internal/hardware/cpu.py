"""The number of processor cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # inside a container, that of the container


def usable_cores() -> int:
    """The number of cores that the process may use. Under SLURM and in containers, often fewer than exist."""
    # macOS and Windows have no affinity mask
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(_CGROUP)
    return cores if quota is None else min(cores, quota)


def _quota(cgroup: Path) -> int | None:
    """The limit of processor time (`docker run --cpus`), rounded up to cores; None if there is none."""
    try:
        if (limits := cgroup / "cpu.max").exists():  # version 2
            quota, period = limits.read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return -(-int(quota) // int(period)) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no limit: no such file, or "max"
        return None
