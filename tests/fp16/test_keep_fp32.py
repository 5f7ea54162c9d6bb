"""Nodes beyond the range of float16 stay float32, with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fp16.float16_models import converted, ops, run, scalar, types
from tests.networks import CHANNELS, image_input, images, weight, write


def test_a_constant_beyond_float16_keeps_its_node_in_float32(tmp_path: Path) -> None:
    """A BatchNormalization whose running variance is 1e7, as the PP-OCRv4 detector has."""
    large = {"mean": 0.0, "variance": 1e7, "gain": 3000.0, "bias": 0.0}
    weights = [numpy_helper.from_array(np.full(CHANNELS, value, np.float32), name) for name, value in large.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gain", "bias", "mean", "variance"], ["y"]),
    ]
    kernel = weight("w", CHANNELS, CHANNELS, 1, 1)
    path = write(tmp_path / "bn.onnx", nodes, [kernel, *weights], [image_input()], ["y"])
    proto, result = converted(path)
    assert [(node.output, node.cause, node.reason) for node in result.fp32_nodes] == [
        ("y", "range", "constant 'variance' reaches 1e+07")
    ]
    feeds = {"x": images(4)}
    np.testing.assert_allclose(run(proto, feeds), run(path, feeds), atol=0.01)


@pytest.mark.parametrize(
    ("amax", "reason"),
    [
        (20000.0, "'a' reaches 2e+04"),
        (1e-5, "the largest magnitude of 'a' is 1e-05"),
        (float("nan"), "'a' reaches nan"),
        (None, "'a' was not measured"),
    ],
)
def test_producer_and_readers_of_a_tensor_out_of_range_stay_float32(
    tmp_path: Path, amax: float | None, reason: str
) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Exp", ["r"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Tanh", ["b"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, [], [image_input()], ["y"])
    measured = {"x": 1.0, "r": 1.0, "b": 2.0, "y": 1.0} | ({} if amax is None else {"a": amax})
    proto, result = converted(path, measured)
    assert [(node.output, node.reason) for node in result.fp32_nodes] == [("a", reason), ("b", reason)]
    assert {name: types(proto)[name] for name in "rab"} == {"r": 10, "a": 1, "b": 1}
    assert ops(proto)["Cast"] == 4  # in; r to float32; b to float16; out


def test_zeros_are_in_range(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [], [image_input()], ["y"])
    assert not converted(path, {"x": 0.0, "y": 0.0})[1].fp32_nodes


def test_an_epsilon_below_float16_stays_float32_up_to_the_division(tmp_path: Path) -> None:
    """x / sqrt(mean(x^2) + 1e-12) of zeros is 0, not 0 / 0."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("GlobalAveragePool", ["square"], ["mean"]),
        helper.make_node("Add", ["mean", "epsilon"], ["guarded"]),
        helper.make_node("Sqrt", ["guarded"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, [scalar("epsilon", 1e-12)], [image_input()], ["y"])
    proto, result = converted(path)
    assert [(node.output, node.cause) for node in result.fp32_nodes] == [("guarded", "offset"), ("root", "offset")]
    assert (run(proto, {"x": np.zeros((1, CHANNELS, 8, 8), np.float32)}) == 0).all()


def test_a_small_bias_can_be_float16(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx", [helper.make_node("Add", ["x", "b"], ["y"])], [scalar("b", 1e-6)], [image_input()], ["y"]
    )
    assert not converted(path)[1].fp32_nodes


def test_a_small_factor_stays_float32(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx", [helper.make_node("Mul", ["x", "k"], ["y"])], [scalar("k", 1e-6)], [image_input()], ["y"]
    )
    (node,) = converted(path)[1].fp32_nodes
    assert (node.cause, node.reason) == ("range", "the largest magnitude of constant 'k' is 1e-06")


def test_an_ineffective_bound_of_a_clip_saturates(tmp_path: Path) -> None:
    bounds = [scalar("low", 0.0), scalar("high", float(np.finfo(np.float32).max))]
    path = write(
        tmp_path / "m.onnx", [helper.make_node("Clip", ["x", "low", "high"], ["y"])], bounds, [image_input()], ["y"]
    )
    proto, result = converted(path)
    assert not result.fp32_nodes
    assert max(float(numpy_helper.to_array(tensor)) for tensor in proto.graph.initializer) == 65504


def test_without_measurement_a_mask_constant_stays_float32_up_to_the_softmax(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Where", ["seen", "zero", "lowest"], ["mask"]),
        helper.make_node("MatMul", ["x", "x"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["p"]),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
    ]
    constants = [scalar("zero", 0), scalar("lowest", float(np.finfo(np.float32).min))]
    inputs = [image_input(), helper.make_tensor_value_info("seen", TensorProto.BOOL, [1, 1, 1, 8])]
    path = write(tmp_path / "m.onnx", nodes, constants, inputs, ["y"])
    proto, result = converted(path)
    assert [node.output for node in result.fp32_nodes] == ["mask", "masked", "p"]
    feeds = {"x": images(2), "seen": np.zeros((1, 1, 1, 8), bool)}  # nothing is seen: -inf would give NaN
    np.testing.assert_allclose(run(proto, feeds), run(path, feeds), atol=0.01)


def test_an_infinite_constant_can_be_float16(tmp_path: Path) -> None:
    nodes = [helper.make_node("Where", ["seen", "x", "lowest"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])]
    inputs = [image_input(), helper.make_tensor_value_info("seen", TensorProto.BOOL, [8])]
    path = write(tmp_path / "m.onnx", nodes, [scalar("lowest", -np.inf)], inputs, ["y"])
    proto, result = converted(path)
    assert not result.fp32_nodes
    feeds = {"x": images(2), "seen": np.arange(8) < 5}
    np.testing.assert_allclose(run(proto, feeds), run(path, feeds), atol=0.001)
