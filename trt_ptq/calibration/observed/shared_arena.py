"""One memory arena of ONNX Runtime for several sessions, which run one after the other."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from trt_ptq.onnx_io.ort_session import create_session, session_options


def use_shared_arena(options: ort.SessionOptions) -> None:
    """Let sessions with `options` take their tensors from the shared arena, if they use an arena at all.

    With an arena each, every session would keep the memory that it once needed.
    """
    if options.enable_cpu_mem_arena:
        _create_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")


def shrink_shared_arena() -> None:
    """Return memory that no tensor uses to the system. ONNX Runtime does that after a run, here of an empty model."""
    options = session_options(threads=1)
    if not options.enable_cpu_mem_arena:
        return
    use_shared_arena(options)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "empty", [value], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = create_session(model, Path(), "empty", options)
    shrinking = ort.RunOptions()
    shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.zeros(1, np.float32))
    binding.bind_output("x")
    with suppress(Exception):  # some builds of ONNX Runtime have no arena
        session.run_with_iobinding(binding, shrinking)


@cache
def _create_arena() -> None:
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)
