"""The arena that the segments of a model share."""

from __future__ import annotations

import onnxruntime as ort

from trt_ptq.calibration.observed.shared_arena import shrink_shared_arena, use_shared_arena
from trt_ptq.onnx_io.ort_session import limited_memory, session_options

_ENTRY = "session.use_env_allocators"


def _uses_it(options: ort.SessionOptions) -> bool:
    try:
        return bool(options.get_session_config_entry(_ENTRY) == "1")
    except RuntimeError:  # no such entry
        return False


def test_sessions_share_it_except_in_limited_memory() -> None:
    for limit in (None, 10**9):
        with limited_memory(limit):
            options = session_options()
            use_shared_arena(options)
            shrink_shared_arena()
            assert _uses_it(options) is (limit is None)
