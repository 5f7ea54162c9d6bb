"""Where, when and on which code something was measured: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from trt_ptq.version import __version__

_LIBRARIES = ("numba", "numpy", "onnx", "onnx-ir", "onnxruntime")
_ROOT = Path(__file__).parents[1]
_RESULTS = (":!benchmarks/results", ":!docs/benchmarks.md")  # that a measurement itself changes


def environment() -> dict[str, object]:
    """Time in UTC, commit, processor, usable cores, memory in bytes, and versions."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "trt_ptq": __version__,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def commit() -> str:
    """The short hash of the commit, with a + where other files than results differ; "unknown" outside a checkout."""
    described = _git("describe", "--always", "--abbrev=9", "--exclude=*").stdout.strip()
    if not described:
        return "unknown"
    return described + ("+" if _git("diff", "--quiet", "HEAD", "--", ".", *_RESULTS).returncode else "")


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _processor() -> str:
    """Name and flags that matter, from Linux."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    named = facts.get("model name", platform.machine())
    widest = next((flag for flag in ("amx_tile", "avx512f", "avx2") if flag in facts.get("flags", "").split()), "")
    return f"{named}, family {facts.get('cpu family', '?')} model {facts.get('model', '?')} {widest}".strip()
