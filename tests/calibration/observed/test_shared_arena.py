"""The arena that the segments of a model share."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from trt_ptq._internal.hardware.process_memory import PeakMemory
from trt_ptq.calibration.observed.shared_arena import shrink_shared_arena, use_shared_arena
from trt_ptq.onnx_io.ort_session import create_session, limited_memory, session_options

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


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not report the peak of a part of the run")
def test_memory_that_no_tensor_uses_is_returned(tmp_path: Path) -> None:
    nodes = [helper.make_node("Exp", [left], [right]) for left, right in ("xa", "ab", "bc", "cy")]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, None)] for name in "xy")
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = session_options()
    use_shared_arena(options)
    create_session(proto, tmp_path, "model", options).run(["y"], {"x": np.zeros(50_000_000, np.float32)})
    before = PeakMemory().peak_bytes()
    shrink_shared_arena()
    assert PeakMemory().peak_bytes() < before - 100_000_000
