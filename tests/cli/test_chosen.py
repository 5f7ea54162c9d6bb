"""What the options of `quantize` ask for."""

from __future__ import annotations

import pytest

from trt_ptq.calibrators.methods import AUTO_CANDIDATES, Percentile
from trt_ptq.cli.chosen import QuantizationChoices


def chosen(method: str | None = None, percentile: float | None = None) -> QuantizationChoices:
    return QuantizationChoices.of(method, percentile, repair=None, attention=False, high_precision=None)


def test_without_a_method_all_are_compared() -> None:
    found = chosen()
    assert (found.method, *found.alternatives) == AUTO_CANDIDATES


@pytest.mark.parametrize("method", ["percentile", "minmax", "mse", "entropy"])
def test_a_method_by_name_is_not_compared(method: str) -> None:
    found = chosen(method)
    assert found.method.name.startswith(method)
    assert found.alternatives == ()


def test_a_percentile_alone_is_a_method() -> None:
    assert (chosen(percentile=99.9).method, chosen(percentile=99.9).alternatives) == (Percentile(99.9), ())


def test_auto_is_the_default() -> None:
    assert chosen("auto").alternatives == chosen().alternatives
