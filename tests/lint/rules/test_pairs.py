"""QuantizeLinear and DequantizeLinear form pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.lint.findings import found, rules
from tests.lint.sketch import Sketch


def test_a_quantized_output_of_the_model_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    quantized = sketch.quantize(sketch.conv(sketch.pair()))
    assert found(sketch.save(tmp_path / "m.onnx", quantized, dtype=TensorProto.INT8)) == [
        ("warning", "lone-quantize", "QuantizeLinear4", "output 'QuantizeLinear4' of the model is quantized")
    ]


def test_a_dequantized_input_of_the_model_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch(dtype=TensorProto.INT8)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.dequantize("x")))) == [
        ("warning", "lone-dequantize", "DequantizeLinear0", "input 'x' of the model is dequantized")
    ]


def test_dequantizing_what_was_cast_to_int8_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    integers = sketch.node("Cast", "x", to=TensorProto.INT8)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.dequantize(integers)))) == [
        ("warning", "lone-dequantize", "DequantizeLinear1", "dequantizes the output of Cast")
    ]


def test_an_operator_on_integers_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    pooled = sketch.node("MaxPool", sketch.quantize("x"), kernel_shape=[2, 2])
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.dequantize(pooled)))) == [
        ("warning", "int8-reader", "MaxPool1", "MaxPool reads the integers of 'QuantizeLinear0'")
    ]


def test_an_operator_behind_the_pair_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    pooled = sketch.node("MaxPool", sketch.pair(), kernel_shape=[2, 2])
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(pooled))) == []


def test_unlike_scales_in_a_pair_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    pair = sketch.dequantize(sketch.quantize("x", 0.02), 0.05)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(pair))) == [
        ("error", "pair-mismatch", "DequantizeLinear1", "quantized with scale 0.02, dequantized with 0.05")
    ]


def test_unlike_axes_in_a_pair_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    arguments = (np.full(16, 0.01), np.zeros(16, np.int8))
    weight = sketch.dequantize(sketch.quantize(sketch.float_kernel(), *arguments, axis=1), *arguments, axis=0)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))) == [
        ("error", "pair-mismatch", "DequantizeLinear1", "quantized along axis 1, dequantized along 0")
    ]


def test_unlike_zero_points_in_a_pair_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    pair = sketch.dequantize(sketch.quantize("x", 0.02, np.int8(0)), 0.02, np.int8(5))
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(pair))) == ["pair-mismatch"]


def test_a_scale_in_float16_for_one_in_float32_is_the_same(tmp_path: Path) -> None:
    sketch = Sketch(opset=19)
    half, zero_point = sketch.constant(np.float16(0.02)), sketch.constant(np.int8(0))
    pair = sketch.node("DequantizeLinear", sketch.quantize("x", 0.02), half, zero_point)
    path = sketch.save(tmp_path / "m.onnx", sketch.node("Relu", pair), dtype=TensorProto.FLOAT16)
    assert rules(path) == []


@pytest.mark.parametrize(("second", "scales"), [(0.02, "the same scale"), (0.05, "another scale")])
def test_two_pairs_in_a_row_are_a_warning(tmp_path: Path, second: float, scales: str) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.pair(sketch.pair("x", 0.02), second))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        (
            "warning",
            "quantized-twice",
            "QuantizeLinear2",
            f"quantizes the dequantized 'DequantizeLinear1' again, with {scales}",
        )
    ]


def test_one_tensor_with_two_scales_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    outputs = sketch.conv(sketch.pair("x", 0.02)), sketch.conv(sketch.pair("x", 0.05))
    assert found(sketch.save(tmp_path / "m.onnx", *outputs)) == [
        ("warning", "conflicting-scales", "QuantizeLinear4", "activation 'x' is quantized with scales 0.02 and 0.05")
    ]


def test_one_tensor_quantized_twice_with_one_scale_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    outputs = sketch.conv(sketch.pair("x", 0.02)), sketch.conv(sketch.pair("x", 0.02))
    assert rules(sketch.save(tmp_path / "m.onnx", *outputs)) == []


def test_a_dequantizelinear_with_several_readers_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    pair = sketch.pair()
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(pair), sketch.conv(pair))) == []
