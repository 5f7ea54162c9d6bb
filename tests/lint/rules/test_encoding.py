"""Integer types and zero points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.lint.findings import found, rules
from tests.lint.sketch import ROWS, Sketch


def test_symmetric_int8_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair()))) == []


def test_a_zero_point_other_than_0_is_an_error(tmp_path: Path) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.pair("x", 0.02, np.int8(3)))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("error", "zero-point", "QuantizeLinear0", "zero point 3")
    ]


def test_zero_points_of_a_weight_are_checked_individually(tmp_path: Path) -> None:
    sketch = Sketch()
    zeros = np.zeros(16, np.int8)
    zeros[7] = 1
    weight = sketch.dequantize(sketch.constant(np.ones((16, 16, 3, 3), np.int8)), np.full(16, 0.1), zeros, axis=0)
    output = sketch.conv(sketch.pair(), weight)
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("error", "zero-point", "DequantizeLinear0", "zero point 0 to 1")
    ]


def test_uint8_is_an_error_on_an_activation(tmp_path: Path) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.pair("x", 0.02, np.uint8(0)))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [("error", "uint8", "QuantizeLinear0", "uint8")]


def test_uint8_is_an_error_on_a_weight(tmp_path: Path) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.pair(), sketch.kernel(dtype=np.uint8))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["uint8"]


def test_without_a_zero_point_the_standard_means_uint8(tmp_path: Path) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.pair("x", 0.02, None))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("error", "uint8", "QuantizeLinear0", "no zero point: uint8 by the ONNX standard")
    ]


@pytest.mark.parametrize(("dtype", "expected"), [(TensorProto.INT8, []), (TensorProto.UINT8, ["uint8"])])
def test_output_dtype_stands_in_for_the_zero_points_type(tmp_path: Path, dtype: int, expected: list[str]) -> None:
    sketch = Sketch(opset=21)
    scale = sketch.constant(0.02, np.float32)
    quantized = sketch.node("QuantizeLinear", "x", scale, output_dtype=dtype)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == expected


@pytest.mark.parametrize("zero_point", [None, np.int32(0)], ids=["without a zero point", "with one"])
def test_an_int32_bias_is_an_error(tmp_path: Path, zero_point: np.int32 | None) -> None:
    sketch = Sketch()
    bias = sketch.dequantize(sketch.constant(np.ones(16, np.int32)), 0.001, zero_point)
    output = sketch.conv(sketch.pair(), sketch.kernel(), bias)
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("error", "int32-bias", "DequantizeLinear0", "dequantizes int32")
    ]


def test_a_float_bias_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.pair(), sketch.kernel(), sketch.constant(np.ones(16), np.float32))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == []


@pytest.mark.parametrize("name", ["INT16", "UINT16", "UINT4", "FLOAT8E5M2", "FLOAT8E4M3FNUZ"])
def test_types_that_tensorrt_does_not_support_are_errors(tmp_path: Path, name: str) -> None:
    sketch = Sketch(opset=23, shape=ROWS)
    zero_point = sketch.tensor(helper.make_tensor("", getattr(TensorProto, name), [], [0]))
    scale = sketch.constant(0.02, np.float32)
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.node("Relu", sketch.node("DequantizeLinear", quantized, scale, zero_point))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [("error", "type", "QuantizeLinear0", name.lower())]


@pytest.mark.parametrize("name", ["FLOAT8E4M3FN", "FLOAT4E2M1", "INT4"])
def test_types_that_only_some_gpus_support_are_noted(tmp_path: Path, name: str) -> None:
    sketch = Sketch(opset=23, shape=ROWS)
    zero_point = sketch.tensor(helper.make_tensor("", getattr(TensorProto, name), [], [0]))
    scale = sketch.constant(0.02, np.float32)
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.node("Relu", sketch.node("DequantizeLinear", quantized, scale, zero_point))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("note", "low-precision", "QuantizeLinear0", name.lower())
    ]


def test_operators_of_nvidias_own_domain_are_noted(tmp_path: Path) -> None:
    sketch = Sketch()
    scale = sketch.constant(0.02, np.float32)
    quantized = sketch.node("TRT_FP8QuantizeLinear", "x", scale, domain="trt")
    output = sketch.node("TRT_FP8DequantizeLinear", quantized, scale, domain="trt")
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["low-precision", "low-precision"]


def test_operators_on_integers_are_errors(tmp_path: Path) -> None:
    sketch = Sketch()
    quantized = sketch.quantize("x")
    product = sketch.node("ConvInteger", quantized, sketch.constant(np.ones((16, 16, 3, 3), np.int8)))
    output = sketch.node("Cast", product, to=TensorProto.FLOAT)
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("error", "integer-operator", "ConvInteger1", "ConvInteger")
    ]


def test_a_gather_of_int8_rows_is_an_error(tmp_path: Path) -> None:
    sketch = Sketch(shape=(4,), dtype=TensorProto.INT64)
    rows = sketch.node("Gather", sketch.constant(np.ones((64, 32), np.int8)), "x")
    output = sketch.node("Relu", sketch.dequantize(rows))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["int8-constant", "lone-dequantize"]


def test_a_gather_of_dequantized_rows_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch(shape=(4,), dtype=TensorProto.INT64)
    output = sketch.node("Gather", sketch.weight(64, 32), "x")
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == []


def test_int8_weights_that_are_transposed_before_they_are_dequantized_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch(shape=ROWS)
    turned = sketch.node("Transpose", sketch.constant(np.ones((64, 32), np.int8)))
    weight = sketch.dequantize(turned, np.full(64, 0.01), np.zeros(64, np.int8), axis=1)
    output = sketch.node("MatMul", sketch.pair(), weight)
    assert found(sketch.save(tmp_path / "m.onnx", output))[0][:3] == ("error", "int8-constant", "Transpose0")
