"""Ranges of activations that are too large for the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.lint.findings import found, rules
from tests.lint.sketch import ROWS, Sketch
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator
from trt_ptq.errors import StatisticsError
from trt_ptq.lint.linter import lint_model
from trt_ptq.provenance import DataFingerprint, ModelIdentity

MASK = -10000.0


def masked(sketch: Sketch, amax: float) -> str:
    """Scores with a mask added, as attention has them, quantized with the range `amax` for a MatMul."""
    mask = sketch.node("Mul", sketch.input("mask", 4, 32), sketch.constant(MASK, np.float32))
    scores = sketch.pair(sketch.node("Add", "x", mask), amax / 127)
    return sketch.node("MatMul", scores, sketch.weight(32, 64, axis=1))


def measured(**amax: float) -> Statistics:
    """Statistics in which each tensor took values up to `amax`."""
    tensors = {}
    for name, value in amax.items():
        accumulator = TensorAccumulator()
        accumulator.update(np.array([-value / 2, value], np.float32))
        tensors[name] = accumulator.statistics()
    return Statistics(ModelIdentity("graph", "weights"), DataFingerprint(1), (), tensors)


def unused(path: Path, statistics: Statistics) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.rule, finding.detail) for finding in lint_model(path, statistics)]


def quantized(tmp_path: Path, ranges: Mapping[str, float]) -> Path:
    """Convolutions of inputs, each with its range."""
    sketch = Sketch()
    for name in ranges.keys() - {"x"}:
        sketch.input(name, 1, 16, 8, 8)
    outputs = [sketch.conv(sketch.pair(name, amax / 127)) for name, amax in ranges.items()]
    return sketch.save(tmp_path / "m.onnx", *outputs)


def test_a_range_from_a_mask_constant_is_an_error(tmp_path: Path) -> None:
    sketch = Sketch(shape=ROWS)
    path = sketch.save(tmp_path / "m.onnx", masked(sketch, 10005.0))
    assert [finding[:2] for finding in found(path)] == [("error", "implausible-range")]
    assert "is that of the constant -1e+04" in found(path)[0][3]


def test_an_ordinary_range_behind_a_mask_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch(shape=ROWS)
    assert rules(sketch.save(tmp_path / "m.onnx", masked(sketch, 12.0))) == []


def test_an_implausible_range_is_an_error(tmp_path: Path) -> None:
    assert rules(quantized(tmp_path, {"x": 1e30})) == ["implausible-range"]


def test_a_large_range_is_accepted_without_statistics(tmp_path: Path) -> None:
    assert rules(quantized(tmp_path, {"x": 1e5})) == []


def test_a_range_far_beyond_the_measured_values_is_a_warning(tmp_path: Path) -> None:
    path = quantized(tmp_path, {"x": 100.0, "z": 100.0})
    assert unused(path, measured(x=5.0, z=50.0)) == [
        ("warning", "oversized-range", "range 100 of 'x', whose largest measured magnitude is 5")
    ]


def test_a_tensor_takes_the_statistics_of_the_one_it_shares_its_range_with(tmp_path: Path) -> None:
    statistics = replace(measured(pooled=5.0), shares_range={"x": "pooled"})
    assert [rule for _, rule, _ in unused(quantized(tmp_path, {"x": 100.0}), statistics)] == ["oversized-range"]


def test_an_input_of_a_concat_may_have_the_range_of_its_output(tmp_path: Path) -> None:
    sketch = Sketch()
    pairs = sketch.pair("x", 100 / 127), sketch.pair(sketch.input("z", 1, 16, 8, 8), 100 / 127)
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.node("Concat", *pairs, axis=2)))
    assert unused(path, measured(x=1.0, z=100.0)) == []


def test_a_tensor_that_was_always_zero_is_not_checked(tmp_path: Path) -> None:
    assert unused(quantized(tmp_path, {"x": 100.0}), measured(x=0.0)) == []


def test_statistics_of_another_model_are_refused(tmp_path: Path) -> None:
    path = quantized(tmp_path, {"x": 1.0})
    with pytest.raises(StatisticsError, match=r"none of the tensors that .*m\.onnx quantizes \(for example 'x'\)"):
        lint_model(path, measured(other=1.0))
