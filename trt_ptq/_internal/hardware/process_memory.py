"""The memory of this process."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from trt_ptq.errors import UsageError

_PROC = Path("/proc/self")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


class PeakMemory:
    """Measures the peak resident memory from its creation on; what the process used and freed before is left out.

    Linux counts it exactly. macOS knows only the peak since the process started: if that does not grow, `peak_bytes`
    is the memory in use when it is called.

    Raises:
        UsageError: The operating system does not report memory (Windows).
    """

    def __init__(self) -> None:
        gc.collect()  # models are graphs with cycles, which stay in memory until then
        self._reset = False
        if sys.platform == "linux":
            with suppress(OSError):  # a container may forbid it
                (_PROC / "clear_refs").write_text(_RESET_PEAK)
                self._reset = True
        self._peak_before = _peak_since_start()

    def peak_bytes(self) -> int:
        """The peak so far, in bytes."""
        peak = _peak_since_start()
        return peak if self._reset or peak > self._peak_before else _resident()


def return_free_memory() -> None:
    """Return memory that was freed to the system, where the C library is glibc: by itself it keeps most of it."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _peak_since_start() -> int:
    if sys.platform == "linux":
        return _status("VmHWM")
    try:
        import resource
    except ImportError as error:
        raise UsageError(f"`memory_limit` is not supported on {sys.platform}: use smaller batches instead") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS reports bytes, others kilobytes


def _resident() -> int:
    if sys.platform == "linux":
        return _status("VmRSS")
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1024


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", (_PROC / "status").read_text(), re.MULTILINE)
    if found is None:
        raise UsageError("`memory_limit` is not supported here: /proc/self/status does not report memory")
    return int(found[1]) * 1024
