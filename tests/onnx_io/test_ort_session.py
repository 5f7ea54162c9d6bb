"""One module creates all ONNX Runtime sessions, with the settings that they share."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import trt_ptq
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.onnx_io import ort_session
from trt_ptq.onnx_io.ort_session import create_session, limited_memory, load_session

PACKAGE = Path(trt_ptq.__file__).parent
FACTORY = PACKAGE / "onnx_io" / "ort_session.py"


def test_no_other_module_creates_sessions_or_options() -> None:
    creators = {
        path
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("InferenceSession", "SessionOptions")
    }
    assert creators == {FACTORY}


def quantized_matmul() -> onnx.ModelProto:
    """A product whose pairs of int8 products exceed 16 bits: kernels without VNNI saturate there."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "step", "zero"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "large", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "large", "zero"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1, np.float32), "step"),
        numpy_helper.from_array(np.array(2**14, np.float32), "large"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
        numpy_helper.from_array(np.full((64, 4), 127, np.int8), "w"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[ort.SessionOptions]:
    """The options of all sessions that are created."""
    options: list[ort.SessionOptions] = []
    original = ort.InferenceSession

    def record(model: str | bytes, given: ort.SessionOptions, **others: object) -> ort.InferenceSession:
        options.append(given)
        return original(model, given, **others)

    monkeypatch.setattr(ort, "InferenceSession", record)
    return options


def test_all_sessions_share_threads_memory_and_rounding(
    tmp_path: Path, created: list[ort.SessionOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = (os.cpu_count() or 1) + 1  # other than all cores, of which this process may use only some
    monkeypatch.setattr(ort_session, "usable_cores", lambda: threads)
    path = tmp_path / "m.onnx"
    onnx.save(quantized_matmul(), path)
    create_session(quantized_matmul(), tmp_path, "m")
    load_session(path, "m")
    with onnx_runner(path):
        pass
    assert len(created) == 3
    for options in created:
        assert options.intra_op_num_threads == threads
        assert options.enable_cpu_mem_arena
        assert not options.enable_mem_pattern
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"
        assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_integer_kernels_neither_round_nor_saturate(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(quantized_matmul(), path)
    with onnx_runner(path) as runner:
        y = runner.infer({"x": np.full((1, 64), 127, np.float32)}, "here")["y"]
    np.testing.assert_array_equal(y, np.full((1, 4), 63 * 2**14, np.float32))  # 64 * 127 * 127 = 63.004 * 2**14


def test_a_memory_limit_does_without_the_arena(tmp_path: Path, created: list[ort.SessionOptions]) -> None:
    for limit in (None, 10**9):
        with limited_memory(limit):
            create_session(quantized_matmul(), tmp_path, "m")
    create_session(quantized_matmul(), tmp_path, "m")
    assert [options.enable_cpu_mem_arena for options in created] == [True, False, True]
