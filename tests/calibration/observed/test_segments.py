"""An observed model that is cut computes what one session computes, whatever the graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import image_input, images, residual_cnn, sequences, transformer_block, weight, write
from tests.observed_arrays import observed_arrays
from trt_ptq.calibration.devices import HostDevice, TorchDevice
from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.calibration.observed.observed_sessions import create_observed_sessions
from trt_ptq.calibration.observed.segments import cut
from trt_ptq.calibration.tensors import model_with_outputs, select_calibration_tensors
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import CPU
from trt_ptq.onnx_io.save import save_model
from trt_ptq.types import Array, Batch


def bottleneck(path: Path) -> Path:
    """Two convolutions, and a third one that adds its result to that of the first: x -> r1 -> r2 -> (+ r1) a -> y."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c3", "r1"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    return write(path, nodes, [weight(f"w{i}", 16, 16, 3, 3) for i in (1, 2, 3)], [image_input()], ["y"])


def branches(path: Path) -> Path:
    """An If whose branches read r1, from outside, and a constant: x -> c1 -> r1 -> b -> y."""
    then = helper.make_graph(
        [helper.make_node("Neg", ["r1"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["r1"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, None)]
    )
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "limit"], ["g"]),
        helper.make_node("If", ["g"], ["b"], then_branch=then, else_branch=other),
        helper.make_node("Conv", ["b", "w2"], ["y"], pads=[1, 1, 1, 1]),
    ]
    limit = numpy_helper.from_array(np.array(0.5, np.float32), "limit")
    return write(path, nodes, [weight("w1", 16, 16, 3, 3), weight("w2", 16, 16, 3, 3), limit], [image_input()], ["y"])


def through_a_sequence(path: Path) -> Path:
    """Two tensors pass through a sequence: x -> a, b -> (a, b) -> c -> y."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("SequenceConstruct", ["a", "b"], ["q"]),
        helper.make_node("Exp", ["b"], ["c"]),
        helper.make_node("ConcatFromSequence", ["q"], ["d"], axis=1),
        helper.make_node("Tanh", ["d"], ["y"]),
    ]
    return write(path, nodes, [], [image_input()], ["c", "y"])


def positive_values(path: Path) -> Path:
    """How many values y has depends on those of x: x -> r -> y, z."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], axis=0),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("NonZero", ["r"], ["i"]),
        helper.make_node("Transpose", ["i"], ["t"], perm=[1, 0]),
        helper.make_node("GatherND", ["r", "t"], ["y"]),
        helper.make_node("Exp", ["y"], ["z"]),
    ]
    return write(path, nodes, [], [image_input()], ["z"])


def half(path: Path) -> Path:
    """`residual_cnn` in float16."""
    save_model(to_float16(load_model(residual_cnn(path))), path)
    return path


@pytest.mark.parametrize(
    "make", [residual_cnn, branches, through_a_sequence, positive_values, half], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("device", [HostDevice, lambda: TorchDevice("cpu")], ids=["numpy", "torch"])
def test_a_cut_model_computes_what_one_session_computes(tmp_path: Path, make: Any, device: Any) -> None:
    model = load_model(make(tmp_path / "model.onnx"))
    _check(model, [images(2), images(3, seed=1), images(3, seed=2), images(3, seed=3)], device())


def test_what_is_written_over_was_read_before(tmp_path: Path) -> None:
    model = load_model(bottleneck(tmp_path / "model.onnx"))
    _check(model, [images(2, seed=seed) for seed in range(3)], HostDevice(), ["r1", "r2", "y"])


def test_a_transformer_with_other_lengths_is_cut(tmp_path: Path) -> None:
    model = load_model(transformer_block(tmp_path / "model.onnx"))
    _check(model, [sequences(2, 5), sequences(3, 9, seed=1), sequences(2, 5, seed=2)], HostDevice())


def _check(model: Model, batches: list[Array], device: Any, tensors: Sequence[str] = ("all",)) -> None:
    names = [name for name in select_calibration_tensors(model, tensors).tensors if name != "x"]
    plain = ort.InferenceSession(ir.to_proto(model_with_outputs(model, names)).SerializeToString(), providers=[CPU])
    observed = ObservedModel(model, names, device, threads=1)
    for x in batches:
        arrays = observed_arrays(observed, Batch({"x": x}, "batch"))
        assert arrays.keys() == set(names)
        for name, expected in zip(names, plain.run(None, {"x": x}), strict=True):
            values = np.sort(arrays[name], axis=None)
            assert np.array_equal(values, np.sort(expected, axis=None)), name


def test_each_thread_has_a_tensor_to_count(tmp_path: Path) -> None:
    model = load_model(transformer_block(tmp_path / "model.onnx"))
    proto = ir.to_proto(model_with_outputs(model, [*select_calibration_tensors(model).tensors[1:], "y"]))
    for threads in (1, 3):
        segments = cut(proto, threads)
        assert len(segments) > 1
        assert all(len(segment.observed) >= threads for segment in segments[:-1])
    assert len(cut(proto, 100)) == 1


def test_nodes_that_only_a_removed_if_reads_make_no_segment(tmp_path: Path) -> None:
    proto = onnx.load(branches(tmp_path / "model.onnx"))
    proto.graph.node.insert(2, helper.make_node("Neg", ["r1"], ["n1"]))
    for body in (attribute.g for node in proto.graph.node for attribute in node.attribute if attribute.g.node):
        body.node[0].input[0] = "n1"
    onnx.save(proto, tmp_path / "model.onnx")
    _check(load_model(tmp_path / "model.onnx"), [images(2)], HostDevice(), ["c1", "r1"])


def test_no_sequence_passes_from_one_segment_to_another(tmp_path: Path) -> None:
    segments = cut(onnx.load(through_a_sequence(tmp_path / "model.onnx")), 1)
    assert not any("q" in {value.name for value in segment.proto.graph.input} for segment in segments)


def test_a_residual_is_written_over(tmp_path: Path) -> None:
    model = load_model(bottleneck(tmp_path / "model.onnx"))
    proto = ir.to_proto(model_with_outputs(model, ["r1", "r2", "y"]))
    sessions = create_observed_sessions(proto, tmp_path, "model", [CPU], threads=1)
    if sessions.output_of["y"] == "y":
        pytest.skip("ONNX Runtime has no blocked convolutions for this processor")
    overwritten = [segment.overwritten for segment in sessions.segments if segment.overwritten]
    assert overwritten == [{sessions.output_of["y"]: sessions.output_of["r1"]}]


def test_blocked_sums_of_unknown_type_pass_from_one_segment_to_another(tmp_path: Path) -> None:
    """24 channels do not fill their blocks, so ONNX Runtime adds in the blocked layout, and the sum has no type."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c1", "c2"], ["a1"]),
        helper.make_node("Conv", ["a1", "w3"], ["c3"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c3", "w4"], ["c4"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a1", "c4"], ["y"]),
    ]
    weights = [weight("w1", 24, 16, 3, 3), *(weight(f"w{i}", 24, 24, 3, 3) for i in (2, 3, 4))]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    _check(model, [images(2)], HostDevice())
    proto = ir.to_proto(model_with_outputs(model, ["c1", "c2", "a1", "c3", "c4", "y"]))
    sessions = create_observed_sessions(proto, tmp_path, "model", [CPU], threads=1)
    assert [len(segment.observed) for segment in sessions.segments] == [1] * 6


def test_strings_need_one_session(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Exp", ["r"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("f", "r", "y")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("s", TensorProto.STRING, ["n"])], outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert len(create_observed_sessions(proto, tmp_path, "model", [CPU], threads=1).sessions) == 1
