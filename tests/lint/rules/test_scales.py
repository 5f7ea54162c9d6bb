"""Scales: their values, number and shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.lint.findings import found, rules
from tests.lint.sketch import ROWS, Sketch

UNUSABLE = {"zero": 0.0, "negative": -0.02, "denormal": 1e-40, "infinite": np.inf, "nan": np.nan}


@pytest.mark.parametrize("scale", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unusable_scale_of_an_activation_is_an_error(tmp_path: Path, scale: float) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair("x", scale)))
    assert found(path) == [("error", "scale", "QuantizeLinear0", f"scale {np.float32(scale):g}")]


@pytest.mark.parametrize("scale", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_one_unusable_scale_of_a_weight_is_an_error(tmp_path: Path, scale: float) -> None:
    sketch = Sketch()
    scales = np.full(16, 0.01, np.float32)
    scales[3] = scale
    weight = sketch.dequantize(sketch.constant(np.ones((16, 16, 3, 3), np.int8)), scales, np.zeros(16, np.int8), axis=0)
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))
    assert found(path) == [("error", "scale", "DequantizeLinear0", f"scale {np.float32(scale):g}")]


def test_the_smallest_normal_scale_is_usable(tmp_path: Path) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair("x", np.finfo(np.float32).tiny)))
    assert rules(path) == []


def test_a_scale_computed_from_the_input_is_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    scale, zero_point = sketch.node("ReduceMax", "x", keepdims=0), sketch.constant(np.int8(0))
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale, zero_point))
    path = sketch.save(tmp_path / "m.onnx", output)
    assert rules(path) == ["computed-scale", "computed-scale"]


def test_a_zero_point_computed_from_the_input_is_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    scale = sketch.constant(0.02, np.float32)
    zero_point = sketch.node("Cast", sketch.node("ReduceMin", "x", keepdims=0), to=TensorProto.INT8)
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale, sketch.constant(np.int8(0))))
    path = sketch.save(tmp_path / "m.onnx", output)
    assert found(path) == [
        ("error", "computed-scale", "QuantizeLinear2", "zero point computed from the model's inputs")
    ]


def test_a_scale_computed_from_constants_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    scale = sketch.node("Mul", sketch.constant(0.1, np.float32), sketch.constant(0.2, np.float32))
    zero_point = sketch.constant(np.int8(0))
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale, zero_point))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == []


def test_a_scale_behind_identity_is_read(tmp_path: Path) -> None:
    sketch = Sketch()
    scale = sketch.node("Identity", sketch.constant(0.0, np.float32))
    zero_point = sketch.constant(np.int8(0))
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale, zero_point))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["scale"]


def test_too_few_scales_for_the_channels_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    values = sketch.constant(np.ones((16, 16, 3, 3), np.int8))
    weight = sketch.dequantize(values, np.full(8, 0.01), np.zeros(8, np.int8), axis=0)
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))
    assert found(path) == [("error", "scale-count", "DequantizeLinear0", "8 scales for 16 channels along axis 0")]


def test_scales_and_zero_points_of_different_number_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    weight = sketch.dequantize(sketch.constant(np.ones((16, 16, 3, 3), np.int8)), np.full(16, 0.01), axis=0)
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))
    assert found(path) == [("error", "scale-count", "DequantizeLinear0", "16 scales, 1 zero points")]


def test_scales_in_several_axes_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    scale, zero_point = np.full((1, 1, 1, 1), 0.02), np.zeros((1, 1, 1, 1), np.int8)
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair("x", scale, zero_point)))
    assert rules(path) == ["scale-count", "scale-count"]


def test_a_scale_vector_of_one_element_is_a_warning_on_an_activation(tmp_path: Path) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair("x", [0.02], np.zeros(1, np.int8))))
    assert found(path) == [("warning", "scale-vector", "DequantizeLinear1", "a scale of shape [1] on an activation")]


def test_int8_in_blocks_is_an_error(tmp_path: Path) -> None:
    sketch = Sketch(opset=21, shape=ROWS)
    values = sketch.constant(np.ones((32, 64), np.int8))
    weight = sketch.dequantize(values, np.full((2, 64), 0.01), np.zeros((2, 64), np.int8), axis=0, block_size=16)
    path = sketch.save(tmp_path / "m.onnx", sketch.node("MatMul", sketch.pair(), weight))
    assert found(path) == [("error", "int8-blocks", "DequantizeLinear0", "int8 in blocks of 16")]


@pytest.mark.parametrize(("opset", "expected"), [(12, ["opset"]), (17, [])])
def test_per_channel_scales_need_opset_13(tmp_path: Path, opset: int, expected: list[str]) -> None:
    sketch = Sketch(opset=opset)
    axis = {"axis": 0} if opset > 12 else {}
    values = sketch.constant(np.ones((16, 16, 3, 3), np.int8))
    weight = sketch.dequantize(values, np.full(16, 0.01), np.zeros(16, np.int8), **axis)
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))) == expected
