"""What was measured on: facts without which a figure means nothing."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from trt_ptq.version import __version__

_LIBRARIES = ("numba", "numpy", "onnx", "onnx-ir", "onnxruntime")


def machine() -> dict[str, object]:
    """Processor, usable cores, memory in bytes, versions, and the time in UTC."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "trt_ptq": __version__,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    """Name and flags that matter, from Linux."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    named = facts.get("model name", platform.machine())
    widest = next((flag for flag in ("amx_tile", "avx512f", "avx2") if flag in facts.get("flags", "").split()), "")
    return f"{named}, family {facts.get('cpu family', '?')} model {facts.get('model', '?')} {widest}".strip()
