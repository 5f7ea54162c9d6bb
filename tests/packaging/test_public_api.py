"""The public API: its names, and that its documentation is complete."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import trt_ptq

FUNCTIONS = [name for name in trt_ptq.__all__ if inspect.isfunction(getattr(trt_ptq, name))]
CLASSES = [name for name in trt_ptq.__all__ if inspect.isclass(getattr(trt_ptq, name))]


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def documented(text: str) -> set[str]:
    """Names that the "Args:" section of a docstring explains."""
    section = text.partition("Args:\n")[2].partition("\n\n")[0]
    return {line.strip().partition(":")[0] for line in section.splitlines() if ":" in line}


def test_everything_that_the_documentation_promises_is_there() -> None:
    promised = {
        *("quantize", "calibrate", "quantize_model", "lint_model", "measure_sensitivity", "compare", "build_engine"),
        *("load_model", "load_statistics", "load_table", "load_recipe", "load_report", "open_data"),
        *("QuantizeConfig", "QuantizeResult", "Statistics", "CalibrationTable", "QuantizedModel", "Recipe", "Report"),
        *("EntropyCalibrator", "MinMaxCalibrator", "PercentileCalibrator", "TableCalibrator", "Lower"),
        *("TrtPtqError", "UsageError", "ModelError", "DataError", "TableError", "StatisticsError", "EngineError"),
        *("OutputError", "ClusterError", "MissingPackageError", "Batch", "BatchSource", "ShapeProfile"),
    }
    assert promised <= set(trt_ptq.__all__)
    assert set(trt_ptq.__all__) <= set(dir(trt_ptq))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_documents_every_parameter_what_it_returns_and_raises(name: str) -> None:
    function = getattr(trt_ptq, name)
    text = inspect.getdoc(function) or ""
    assert text.splitlines()[0].endswith("."), "one sentence first"
    assert "Raises:\n" in text
    if len(parameters(function)) > 1:
        assert set(parameters(function)) <= documented(text)
        assert "Returns:\n" in text


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(trt_ptq, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_what_a_function_works_on_is_positional(name: str) -> None:
    kinds = [parameter.kind for parameter in inspect.signature(getattr(trt_ptq, name)).parameters.values()]
    assert sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds) <= 3


def test_the_config_documents_every_field() -> None:
    assert set(parameters(trt_ptq.QuantizeConfig)) == documented(inspect.getdoc(trt_ptq.QuantizeConfig) or "")
