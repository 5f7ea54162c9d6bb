"""Q/DQ that costs accuracy without enabling an INT8 kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint.findings import found, rules
from tests.lint.sketch import Sketch


@pytest.mark.parametrize("operator", ["Softmax", "Exp", "Sqrt", "Erf"])
def test_a_pair_before_a_sensitive_operator_is_a_warning(tmp_path: Path, operator: str) -> None:
    sketch = Sketch()
    assert found(sketch.save(tmp_path / "m.onnx", sketch.node(operator, sketch.pair()))) == [
        ("warning", "sensitive-operator", f"{operator}2", f"{operator} reads 'DequantizeLinear1'")
    ]


def test_a_sensitive_operator_on_float_has_no_findings(tmp_path: Path) -> None:
    sketch = Sketch()
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.node("Softmax", sketch.conv(sketch.pair())))) == []


def test_a_pair_before_an_output_of_the_model_is_a_warning(tmp_path: Path) -> None:
    sketch = Sketch()
    assert found(sketch.save(tmp_path / "m.onnx", sketch.pair(sketch.conv(sketch.pair())))) == [
        ("warning", "quantized-output", "DequantizeLinear5", "output 'DequantizeLinear5' of the model")
    ]
