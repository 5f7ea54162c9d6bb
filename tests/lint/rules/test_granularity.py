"""Per tensor or per channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.lint.findings import found, rules
from tests.lint.sketch import ROWS, Sketch


def test_a_per_channel_activation_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    pair = sketch.pair("x", np.full(16, 0.02), np.zeros(16, np.int8), axis=1)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(pair))) == [
        ("warning", "activation-per-channel", "QuantizeLinear0", "16 scales along axis 1 of activation 'x'")
    ]


@pytest.mark.parametrize(("axis", "expected"), [(0, []), (1, ["weight-axis"]), (2, ["scale-count", "weight-axis"])])
def test_a_conv_weight_is_quantized_along_axis_0(tmp_path: Path, axis: int, expected: list[str]) -> None:
    sketch = Sketch()
    weight = sketch.dequantize(
        sketch.constant(np.ones((16, 16, 3, 3), np.int8)), np.full(16, 0.01), np.zeros(16, np.int8), axis=axis
    )
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))) == expected


@pytest.mark.parametrize(("axis", "expected"), [(0, ["weight-axis"]), (1, [])])
def test_a_convtranspose_weight_is_quantized_along_axis_1(tmp_path: Path, axis: int, expected: list[str]) -> None:
    sketch = Sketch()
    output = sketch.node("ConvTranspose", sketch.pair(), sketch.weight(16, 32, 3, 3, axis=axis))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == expected


@pytest.mark.parametrize(("axis", "expected"), [(0, ["weight-axis"]), (1, [])])
def test_a_matmul_weight_is_quantized_along_its_last_axis(tmp_path: Path, axis: int, expected: list[str]) -> None:
    sketch = Sketch(shape=ROWS)
    output = sketch.node("MatMul", sketch.pair(), sketch.weight(32, 64, axis=axis))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == expected


@pytest.mark.parametrize(("axis", "expected"), [(-1, []), (-2, ["weight-axis"])])
def test_a_negative_axis_counts_from_the_back(tmp_path: Path, axis: int, expected: list[str]) -> None:
    sketch = Sketch(shape=ROWS)
    output = sketch.node("MatMul", sketch.pair(), sketch.weight(32, 64, axis=axis))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == expected


def test_a_weight_on_the_left_of_a_matmul_is_quantized_along_its_rows(tmp_path: Path) -> None:
    sketch = Sketch(shape=(32, 4))
    output = sketch.node("MatMul", sketch.weight(64, 32, axis=0), sketch.pair())
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == []


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_a_gemm_weight_is_quantized_along_its_output_axis(tmp_path: Path, transposed: int, axis: int) -> None:
    shape = (64, 32) if transposed else (32, 64)
    for tried, expected in ((axis, []), (1 - axis, ["weight-axis"])):
        sketch = Sketch(shape=ROWS)
        output = sketch.node("Gemm", sketch.pair(), sketch.weight(*shape, axis=tried), transB=transposed)
        assert rules(sketch.save(tmp_path / "m.onnx", output)) == expected


@pytest.mark.parametrize(("axis", "expected"), [(0, []), (1, ["weight-axis"])])
def test_the_axis_is_followed_through_a_transpose(tmp_path: Path, axis: int, expected: list[str]) -> None:
    sketch = Sketch(shape=ROWS)
    weight = sketch.node("Transpose", sketch.weight(64, 32, axis=axis), perm=[1, 0])
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.node("MatMul", sketch.pair(), weight))) == expected


def test_the_finding_names_the_node_and_both_axes(tmp_path: Path) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), sketch.kernel(axis=1)))
    assert found(path) == [
        ("warning", "weight-axis", "Conv3", "weight quantized along axis 1; its output-channel axis is 0")
    ]


def test_one_scale_for_a_whole_weight_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    weight = sketch.dequantize(sketch.constant(np.ones((16, 16, 3, 3), np.int8)), 0.01)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(), weight))) == [
        ("warning", "weight-per-tensor", "Conv3", "one scale for all 16 output channels")
    ]


def test_one_scale_is_right_for_one_output_channel(tmp_path: Path) -> None:
    sketch = Sketch(shape=ROWS)
    weight = sketch.dequantize(sketch.constant(np.ones((32, 1), np.int8)), 0.01)
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.node("MatMul", sketch.pair(), weight))) == []
