"""Methods by name."""

from __future__ import annotations

import pytest

from trt_ptq.calibrators.methods import METHODS, Percentile, range_method
from trt_ptq.errors import UsageError


@pytest.mark.parametrize("name", ["entropy", "minmax", "mse", "percentile"])
def test_every_method_has_a_name(name: str) -> None:
    assert range_method(name) is METHODS[name]
    assert range_method(name).name.split()[0] == name


def test_the_default_percentile_is_99_99() -> None:
    assert range_method("percentile") == Percentile(99.99)


def test_another_percentile_can_be_asked_for() -> None:
    assert range_method("percentile", 99.5) == Percentile(99.5)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown method 'kl': choose one of entropy, minmax, mse, percentile"):
        range_method("kl")


def test_a_percentile_of_another_method_is_refused() -> None:
    with pytest.raises(UsageError, match="`percentile` applies to method percentile only, not to entropy"):
        range_method("entropy", 99.0)


def test_a_percentile_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="not 101"):
        range_method("percentile", 101)


@pytest.mark.parametrize(("fraction", "meant"), [(0.999, "99.9"), (0.9999, "99.99"), (1, "100")])
def test_a_percentile_that_is_meant_as_a_fraction_is_refused(fraction: float, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"`percentile` is in percent.*did you mean {meant}\?"):
        range_method("percentile", fraction)
