"""Q/DQ that prevents fusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.lint.findings import found, rules
from tests.lint.sketch import ROWS, Sketch


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "HardSwish", "LeakyRelu"])
def test_a_pair_between_convolution_and_activation_is_a_warning(tmp_path: Path, activation: str) -> None:
    sketch = Sketch()
    output = sketch.node(activation, sketch.pair(sketch.conv(sketch.pair())))
    assert found(sketch.save(tmp_path / "m.onnx", output)) == [
        ("warning", "before-activation", "QuantizeLinear4", f"between Conv and its {activation}")
    ]


def test_a_pair_behind_the_activation_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.pair(sketch.node("Relu", sketch.conv(sketch.pair()))))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == []


def test_a_pair_between_convolution_and_batch_normalization_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    numbers = [sketch.constant(np.full(16, value), np.float32) for value in (1, 0, 0, 1)]
    output = sketch.node("BatchNormalization", sketch.pair(sketch.conv(sketch.pair())), *numbers)
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["before-activation"]


def test_a_pair_between_batch_normalization_and_activation_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    numbers = [sketch.constant(np.full(16, value), np.float32) for value in (1, 0, 0, 1)]
    normalized = sketch.node("BatchNormalization", sketch.conv(sketch.pair()), *numbers)
    output = sketch.node("Relu", sketch.pair(normalized))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["before-activation"]


def test_a_pair_between_the_bias_of_a_matmul_and_its_activation_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch(shape=ROWS)
    product = sketch.node("MatMul", sketch.pair(), sketch.weight(32, 64, axis=1))
    biased = sketch.node("Add", product, sketch.constant(np.ones(64), np.float32))
    output = sketch.node("Relu", sketch.pair(biased))
    assert found(sketch.save(tmp_path / "m.onnx", output))[0][3] == "between MatMul and its Relu"


def residual(sketch: Sketch, convolution_quantized: bool, shortcut_quantized: bool) -> str:
    """Conv, Add, Relu, and a convolution behind; the shortcut is a computed tensor."""
    shortcut = sketch.node("Relu", "x")
    pair = sketch.pair(shortcut)
    branch = sketch.conv(pair)
    summands = sketch.pair(branch) if convolution_quantized else branch, pair if shortcut_quantized else shortcut
    return sketch.conv(sketch.pair(sketch.node("Relu", sketch.node("Add", *summands))))


@pytest.mark.parametrize(
    ("convolution", "shortcut", "expected"),
    [
        (False, True, []),
        (True, True, ["double-residual"]),
        (False, False, ["float-residual"]),
    ],
    ids=["the shortcut", "both", "neither"],
)
def test_only_the_shortcut_of_a_residual_add_is_quantized(
    tmp_path: Path, convolution: bool, shortcut: bool, expected: list[str]
) -> None:
    sketch = Sketch()
    assert rules(sketch.save(tmp_path / "m.onnx", residual(sketch, convolution, shortcut))) == expected


def test_an_add_of_two_activations_without_a_convolution_may_have_both_quantized(tmp_path: Path) -> None:
    sketch = Sketch()
    total = sketch.node("Add", sketch.pair("x"), sketch.pair(sketch.input("z", 1, 16, 8, 8)))
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair(total)))) == []


def test_a_convolution_that_others_read_as_int8_may_be_quantized_before_an_add(tmp_path: Path) -> None:
    sketch = Sketch()
    pair = sketch.pair()
    branch = sketch.pair(sketch.conv(pair))
    outputs = sketch.conv(branch), sketch.conv(sketch.pair(sketch.node("Add", branch, pair)))
    assert rules(sketch.save(tmp_path / "m.onnx", *outputs)) == []


def test_a_sum_that_stays_float_needs_no_quantized_shortcut(tmp_path: Path) -> None:
    sketch = Sketch()
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.node("Add", sketch.conv(sketch.pair()), "x"))) == []


def test_unlike_scales_at_a_concat_are_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    pairs = sketch.pair("x", 0.02), sketch.pair(sketch.input("z", 1, 16, 8, 8), 0.05)
    joined = sketch.pair(sketch.node("Concat", *pairs, axis=2), 0.05)
    assert found(sketch.save(tmp_path / "m.onnx", sketch.conv(joined))) == [
        ("warning", "concat-scales", "Concat4", "inputs with scales from 0.02 to 0.05")
    ]


def test_one_scale_at_a_concat_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    pairs = sketch.pair("x", 0.05), sketch.pair(sketch.input("z", 1, 16, 8, 8), 0.05)
    joined = sketch.pair(sketch.node("Concat", *pairs, axis=2), 0.05)
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(joined))) == []
