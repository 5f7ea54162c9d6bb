"""Emulated float16 on ONNX Runtime's CPU provider (proof: run)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.networks import images
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.fp16 import emulate
from trt_ptq.fp16.convert import convert_to_float16, to_float16
from trt_ptq.fp16.emulate import emulate_float16
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import Array


def judged(path: Path, feeds: dict[str, Array]) -> Array:
    with onnx_runner(path) as runner:
        return next(iter(runner.infer(feeds, "here").values()))


@pytest.fixture
def overflowing(tmp_path: Path) -> Path:
    """x * 1000 / 1000 in float16, from float32 to float32, without types of the tensors between."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "k"], ["a"]),
        helper.make_node("Div", ["a", "k"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    thousand = numpy_helper.from_array(np.array(1000, np.float16), "k")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [thousand])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_overflow_that_onnxruntime_hides_is_visible(overflowing: Path) -> None:
    feeds = {"x": np.array([1, 60, 70], np.float32)}
    hidden = ort.InferenceSession(overflowing).run(None, feeds)[0]
    assert hidden.tolist() == [1, 60, 70]
    assert judged(overflowing, feeds).tolist() == [1, 60, np.inf]


def test_every_result_is_rounded(overflowing: Path) -> None:
    x = np.array([1.001, 2.0015, 3.3], np.float32)
    wanted = (x.astype(np.float16) * np.float16(1000)) / np.float16(1000)
    np.testing.assert_array_equal(judged(overflowing, {"x": x}), wanted.astype(np.float32))


def test_an_int8_model_with_a_float16_rest_gives_what_onnx_says(cnn: Model, tmp_path: Path) -> None:
    """ONNX Runtime alone, with its optimiser, is off by more than the values themselves."""
    path = tmp_path / "int8.onnx"
    save_model(convert_to_float16(insert_qdq(cnn, CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})).model).model, path)
    feeds = {"x": images(4)}
    wanted = np.asarray(next(iter(ReferenceEvaluator(str(path)).run(None, dict(feeds)))))
    np.testing.assert_allclose(judged(path, feeds), wanted, atol=0.1)


def test_the_rewritten_model_is_valid_and_keeps_its_interface(cnn: Model, tmp_path: Path) -> None:
    model, path = to_float16(cnn), tmp_path / "rounded.onnx"
    assert emulate_float16(model)
    save_model(model, path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["x", "y"]


def test_float16_inputs_and_outputs_stay_float16(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", ends[:1], ends[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    x = np.array([1, 12], np.float16)
    result = judged(path, {"x": x})
    assert result.dtype == np.float16
    assert result.tolist() == [float(np.float16(np.exp(1.0))), np.inf]


def test_a_float32_model_is_unchanged(cnn: Model) -> None:
    assert not emulate_float16(ir.load(cnn.path))


@pytest.fixture
def selecting(tmp_path: Path) -> Path:
    """Arithmetic between nodes that only select values, all in float16: x [1, 2, 4, 4] to y [1, 2, 2, 2]."""
    nodes = [
        helper.make_node("Mul", ["x", "k"], ["m"]),
        helper.make_node("Clip", ["m", "low", "high"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["p"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("Concat", ["t", "p"], ["two"], axis=1),
        helper.make_node("Mul", ["p", "k"], ["n"]),
        helper.make_node("Slice", ["two", "start", "end", "axis"], ["s"]),
        helper.make_node("Max", ["s", "n"], ["y"]),
    ]
    constants = [
        *(numpy_helper.from_array(np.array(v, np.float16), name) for name, v in (("k", 3.3), ("low", -1), ("high", 9))),
        *(numpy_helper.from_array(np.array([v]), name) for name, v in (("start", 1), ("end", 3), ("axis", 1))),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape)
        for name, shape in (("x", [1, 2, 4, 4]), ("y", [1, 2, 2, 2]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_nodes_that_select_values_need_no_rounding_of_their_own(
    selecting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).normal(0, 3, (1, 2, 4, 4)).astype(np.float16)
    fewer, casts = judged(selecting, {"x": x}), number_of_casts(selecting)
    monkeypatch.setattr(emulate, "_SELECTING_OPS", frozenset())
    np.testing.assert_array_equal(fewer, judged(selecting, {"x": x}))
    wanted = np.asarray(next(iter(ReferenceEvaluator(str(selecting)).run(None, {"x": x}))))
    np.testing.assert_array_equal(fewer, wanted)
    assert (casts, number_of_casts(selecting)) == (5, 17)  # of x, and two each after MaxPool and Max


def number_of_casts(path: Path) -> int:
    model = ir.load(path)
    emulate_float16(model)
    return sum(node.op_type == "Cast" for node in model.graph)
