"""Fidelity of ONNX models to a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from tests.calibration.test_collector import Given
from tests.networks import CHANNELS, image_input, images, residual_cnn, weight, write
from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.onnx_io.load import Model


def test_a_model_equals_itself(cnn: Model) -> None:
    comparison = compare_models(cnn.path, cnn.path, Given([images(3), images(2)]))
    assert comparison.samples == 5
    assert comparison.outputs["y"].cosine == 1
    assert comparison.errors() == {"fidelity of y": 0}


def test_other_weights_are_seen(cnn: Model, tmp_path: Path) -> None:
    other = residual_cnn(tmp_path / "other.onnx", seed=1)
    assert compare_models(cnn.path, other, Given([images(3)])).outputs["y"].cosine < 0.9


def test_a_reference_without_a_finite_value_is_refused(cnn: Model) -> None:
    nan = compare_models(cnn.path, cnn.path, Given([np.full_like(images(2), np.nan)]))
    with pytest.raises(DataError, match=r"no output of the reference has a finite value .* \('y'\)"):
        nan.errors()


def test_a_model_with_other_outputs_is_refused(cnn: Model, tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["z"])
    other = write(tmp_path / "z.onnx", [node], [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["z"])
    with pytest.raises(ModelError, match=r"differ in their outputs \(y, z\)"):
        compare_models(cnn.path, other, Given([images(3)]))


def test_no_batches_is_an_error(cnn: Model) -> None:
    with pytest.raises(DataError, match="no batches to compare on"):
        compare_models(cnn.path, cnn.path, Given([]))


def with_selection(path: Path, op_type: str) -> Path:
    """x -> y = conv(x), and the positions where Relu(y) or y is not 0, whose number depends on the data."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node(op_type, ["y"], ["a"]),
        helper.make_node("NonZero", ["a"], ["found"]),
    ]
    write(path, nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["y"])
    return with_outputs(path, helper.make_tensor_value_info("found", TensorProto.INT64, [4, "k"]))


def with_outputs(path: Path, *outputs: ValueInfoProto) -> Path:
    model = onnx.load(path)
    model.graph.output.extend(outputs)
    onnx.save(model, path)
    return path


def test_an_output_of_varying_length_is_left_to_the_metric(tmp_path: Path) -> None:
    paths = [with_selection(tmp_path / f"{op_type}.onnx", op_type) for op_type in ("Abs", "Relu")]
    fidelity = compare_models(paths[0], paths[1], Given([images(3), images(2)]))
    assert fidelity.outputs.keys() == {"y"}
    assert "output 'found' has shape [4, " in fidelity.warnings()[0]
    with pytest.raises(ModelError, match=r"'found' has shape .* or pass `evaluate`"):
        fidelity.errors()


def test_the_smaller_of_two_joined_quantities_counts(tmp_path: Path) -> None:
    paths = []
    for name, scale in (("reference", 1.0), ("candidate", 0.0)):
        nodes = [
            helper.make_node("Mul", ["x", "large"], ["boxes"]),
            helper.make_node("Mul", ["x", "small"], ["s"]),
            helper.make_node("Concat", ["boxes", "s"], ["c"], axis=1),
            helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
        ]
        factors = [
            numpy_helper.from_array(np.array(1000, np.float32), "large"),
            numpy_helper.from_array(np.array(scale, np.float32), "small"),
        ]
        paths.append(write(tmp_path / f"{name}.onnx", nodes, factors, [image_input()], ["y"]))
    fidelity = compare_models(paths[0], paths[1], Given([images(3), images(2)]))
    part = fidelity.outputs["y"].worst_part
    assert part is not None
    assert (part.axis, part.start, part.stop) == (3, 16, 32)
    assert part.sqnr_db == pytest.approx(0, abs=1)
    assert fidelity.outputs["y"].sqnr_db > 50
    assert fidelity.outputs["y"].error == pytest.approx(1, rel=0.2)
    assert any("'y' joins several quantities: entries 16 to 31 of axis 3" in text for text in fidelity.warnings())


def test_outputs_that_are_constant_or_an_input_are_equal(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["y"])
    constant = helper.make_tensor_value_info("w", TensorProto.FLOAT, [CHANNELS, CHANNELS, 1, 1])
    with_outputs(path, image_input(), constant)
    errors = compare_models(path, path, Given([images(3)])).errors()
    assert errors == {"fidelity of y": 0, "fidelity of x": 0, "fidelity of w": 0}
