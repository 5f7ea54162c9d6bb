"""Which tensors are measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests.networks import CHANNELS, image_input, weight, write
from trt_ptq.calibration.tensors import model_with_outputs, select_calibration_tensors
from trt_ptq.errors import ModelError, UsageError
from trt_ptq.onnx_io.load import Model, load_model


def test_fused_are_the_inputs_of_int8_nodes(cnn: Model) -> None:
    assert select_calibration_tensors(cnn).tensors == ("x", "r1", "f")


def test_a_max_pool_and_a_view_share_the_range_of_their_output(cnn: Model) -> None:
    assert select_calibration_tensors(cnn).shares_range == {"p": "f", "r2": "f"}


def test_all_are_all_float_activations(cnn: Model) -> None:
    calibration_tensors = select_calibration_tensors(cnn, ["all"])
    assert calibration_tensors.tensors == ("x", "c1", "r1", "c2", "a", "r2", "p", "f", "y")
    assert calibration_tensors.shares_range == {}


def test_tensors_can_be_named(cnn: Model) -> None:
    assert select_calibration_tensors(cnn, ["c2", "r1"]).tensors == ("r1", "c2")


def test_fused_all_and_names_combine(cnn: Model) -> None:
    assert select_calibration_tensors(cnn, ["fused", "y"]).tensors == ("x", "r1", "f", "y")
    assert select_calibration_tensors(cnn, ["fused", "all"]).tensors == select_calibration_tensors(cnn, ["all"]).tensors


def test_an_unknown_tensor_is_named(cnn: Model) -> None:
    with pytest.raises(UsageError, match="no float activation named 'conv9'"):
        select_calibration_tensors(cnn, ["conv9"])


def test_a_model_that_cannot_be_quantized_says_why(tmp_path: Path) -> None:
    pixels = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = write(tmp_path / "m.onnx", [node], [weight("w", 32, 3, 3, 3)], [pixels], ["y"])
    with pytest.raises(ModelError, match=r"none of its nodes can run in INT8 \(1 of 1: .*16 channels"):
        select_calibration_tensors(load_model(path))


def test_an_observed_model_has_the_tensors_as_outputs(cnn: Model) -> None:
    assert [value.name for value in model_with_outputs(cnn, ["r1", "c2"]).graph.outputs] == ["r1", "c2"]
    assert [value.name for value in cnn.proto.graph.output] == ["y"]


def test_the_inputs_of_a_concat_share_its_range_and_are_not_measured(tmp_path: Path) -> None:
    """Even one that a convolution reads: both routes give it the Concat's range."""
    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["a"]),
        helper.make_node("Conv", ["a", "wb"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "wy"], ["y"]),
    ]
    weights = [weight("wa", CHANNELS, CHANNELS, 1, 1), weight("wb", CHANNELS, CHANNELS, 1, 1)]
    weights.append(weight("wy", 32, 2 * CHANNELS, 1, 1))
    calibration_tensors = select_calibration_tensors(
        load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    )
    assert calibration_tensors.tensors == ("x", "c")
    assert calibration_tensors.shares_range == {"a": "c", "b": "c"}
