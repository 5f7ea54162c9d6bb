"""The memory of this process."""

from __future__ import annotations

import sys

from trt_ptq.errors import UsageError


def peak_memory_bytes() -> int:
    """The largest resident memory of the process so far, in bytes.

    Raises:
        UsageError: The operating system does not report it (Windows).
    """
    try:
        import resource
    except ImportError as error:
        raise UsageError(f"`memory_limit` is not supported on {sys.platform}: use smaller batches instead") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS reports bytes, Linux kilobytes
