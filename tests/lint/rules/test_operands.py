"""Weighted operators run in INT8 only if both operands are quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.lint.findings import found, rules
from tests.lint.moves import MOVES
from tests.lint.sketch import ROWS, Sketch


def test_a_float_weight_behind_a_quantized_activation_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    weight = sketch.float_kernel()
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))) == [
        ("warning", "float-operand", "Conv2", f"weight {weight!r} is float, the other operand is quantized")
    ]


def test_a_weight_with_a_pair_of_its_own_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    weight = sketch.pair(sketch.float_kernel(), np.full(16, 0.01), np.zeros(16, np.int8), axis=0)
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))) == []


def test_one_quantized_activation_of_a_matmul_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch(shape=ROWS)
    output = sketch.node("MatMul", sketch.pair(), sketch.input("z", 32, 64))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("warning", "float-operand", "MatMul2", "activation 'z' is float, the other operand is quantized")
    ]


def test_two_quantized_activations_of_a_matmul_have_no_findings(tmp_path: Path) -> None:
    sketch = Sketch(shape=ROWS)
    output = sketch.node("MatMul", sketch.pair(), sketch.pair(sketch.input("z", 32, 64)))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == []


def test_a_float_operator_beside_quantized_ones_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    outputs = sketch.conv(sketch.pair()), sketch.conv("x", sketch.float_kernel())
    assert rules(sketch.save(tmp_path / "m.onnx", *outputs)) == []


def test_a_quantized_weight_behind_a_float_activation_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv("x"))) == [
        ("warning", "weight-only", "Conv1", "weight is quantized, activation 'x' is float")
    ]


def test_int4_weights_alone_are_only_noted(tmp_path: Path) -> None:
    sketch = Sketch(opset=21, shape=ROWS)
    values = sketch.tensor(helper.make_tensor("", TensorProto.INT4, [32, 64], [1] * 2048))
    zeros = sketch.tensor(helper.make_tensor("", TensorProto.INT4, [2, 64], [0] * 128))
    scales = sketch.constant(np.full((2, 64), 0.01), np.float32)
    weight = sketch.node("DequantizeLinear", values, scales, zeros, axis=0, block_size=16)
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.node("MatMul", "x", weight))) == ["low-precision"]


@pytest.mark.parametrize("move", MOVES)
def test_data_is_followed_through_operators_that_only_move_it(tmp_path: Path, move: str) -> None:
    sketch = Sketch()
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(MOVES[move](sketch, sketch.pair())))) == []


@pytest.mark.parametrize("computing", ["Relu", "Sigmoid", "GlobalAveragePool"])
def test_data_that_was_computed_behind_the_pair_is_float(tmp_path: Path, computing: str) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.node(computing, sketch.pair()))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["weight-only"]


def test_int8_and_fp8_operands_are_an_error(tmp_path: Path) -> None:
    sketch = Sketch(opset=19, shape=ROWS)
    zero_point = sketch.tensor(helper.make_tensor("", TensorProto.FLOAT8E4M3FN, [], [0]))
    scale = sketch.constant(0.02, np.float32)
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    data = sketch.node("DequantizeLinear", quantized, scale, zero_point)
    path = sketch.save(tmp_path / "m.onnx", sketch.node("MatMul", data, sketch.weight(32, 64, axis=1)))
    assert found(path)[1:] == [("error", "mixed-operands", "MatMul3", "operands in float8e4m3fn and int8")]


def test_a_weight_that_depends_on_an_input_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    weight = sketch.pair(sketch.input("w", 16, 16, 3, 3), np.full(16, 0.01), np.zeros(16, np.int8), axis=0)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))) == [
        ("warning", "runtime-weight", "Conv4", f"weight {weight!r} depends on the model's inputs")
    ]


def test_a_bias_in_int8_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    bias = sketch.dequantize(sketch.constant(np.ones(16, np.int8)), 0.01)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), sketch.kernel(), bias))) == [
        ("warning", "bias", "Conv4", "bias rounded to 8 bits")
    ]
