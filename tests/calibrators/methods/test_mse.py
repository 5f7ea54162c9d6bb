"""MSE: as good, on the raw data, as a brute-force search; and exact on the histogram."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.calibrators.measured import measure
from trt_ptq.calibrators.methods import Mse, mse
from trt_ptq.calibrators.methods.mse import LEVELS, best_edge, squared_error, widest_best


def raw_rms_error(values: npt.NDArray[np.float64], amax: float) -> float:
    """What int8 with that range really does to the data."""
    scale = amax / LEVELS
    quantized = np.clip(np.round(values / scale), -LEVELS, LEVELS) * scale
    return float(np.sqrt(np.mean((values - quantized) ** 2)))


def exact_squared_error(counts: npt.NDArray[np.float64], edge: int) -> float:
    """Literal: each bin is cut at the rounding borders inside it, and (x - q)**2 is integrated over each piece."""
    step = edge / LEVELS
    error = 0.0
    for i in np.flatnonzero(counts):
        borders = [(level + 0.5) * step for level in range(LEVELS)]
        cuts = [float(i), *(border for border in borders if i < border < i + 1), float(i + 1)]
        for low, high in pairwise(cuts):
            value = min(round((low + high) / 2 / step), LEVELS) * step
            error += counts[i] * ((high - value) ** 3 - (low - value) ** 3) / 3
    return error


@settings(max_examples=15)
@given(st.sampled_from(["standard_normal", "standard_exponential", "laplace", "random"]), st.integers(0, 1000))
def test_is_as_good_on_the_raw_data_as_a_brute_force_search(distribution: str, seed: int) -> None:
    values = getattr(np.random.default_rng(seed), distribution)(size=3000).astype(np.float32)
    tensor = measure(values)
    width = tensor.histogram.bin_width
    raw = values.astype(np.float64)
    edges = np.arange(64, tensor.histogram.last_bin + 2, 4)
    least = min(raw_rms_error(raw, min(edge * width, tensor.amax)) for edge in edges)
    # The error of a value, its distance to the nearest level, changes by at most as much as the value moves; spread
    # evenly, a value moves by less than a bin. So (Minkowski) the RMS error on the histogram is within one width of
    # that on the raw data, for the chosen range and for the best one; the last edge is cut to amax, a third width.
    assert raw_rms_error(raw, Mse().amax(tensor)) <= least + 3 * width


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(64, 4096))
def test_the_error_of_an_edge_is_the_exact_integral(seed: int, edge: int) -> None:
    generator = np.random.default_rng(seed)
    counts = np.zeros(4096)
    counts[generator.integers(0, 4096, 20)] = generator.integers(1, 1000, 20)
    index = np.arange(4096)
    moments = np.zeros((3, 4097))
    moments[0, 1:] = np.cumsum(counts)
    moments[1, 1:] = np.cumsum(counts * (index + 0.5))
    moments[2, 1:] = np.cumsum(counts * (index * (index + 1.0) + 1 / 3))
    # Cumulative second moments reach counts * 4096**2, of which float64 keeps 1e-16.
    slack = 1e-15 * LEVELS * counts.sum() * 4096**2
    result = squared_error(counts, moments, edge, math.inf)
    assert result == pytest.approx(exact_squared_error(counts, edge), rel=1e-9, abs=slack)


@given(st.sampled_from(["bell", "tail", "few", "large", "lonely"]), st.integers(64, 4096), st.integers(0, 2**32 - 1))
def test_stopping_sums_early_selects_the_same_edge(shape: str, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    index = np.arange(size)
    shapes: dict[str, Callable[[], Any]] = {
        "bell": lambda: generator.poisson(1000 * np.exp(-((index / (size / generator.uniform(2, 8))) ** 2))),
        "tail": lambda: generator.poisson(3000 / (1 + index) ** generator.uniform(0.5, 2)),
        "few": lambda: generator.integers(0, 100, size) * (generator.random(size) < 0.01),
        "large": lambda: generator.integers(0, 2**50, size),
        "lonely": lambda: np.where(index == generator.integers(size), 10**6, 0),
    }
    counts = np.zeros(4096)
    counts[:size] = shapes[shape]()
    counts[size - 1] += 1
    moments = np.zeros((3, 4097))
    for i in range(4096):  # one after the other, as the search adds them
        moments[:, i + 1] = moments[:, i] + counts[i] * np.array([1, i + 0.5, i * (i + 1) + 1 / 3])
    best, least = size, math.inf
    for edge in range(size, 63, -1):
        error = squared_error(counts, moments, edge, math.inf)
        if error < least * (1 - 1e-12):
            best, least = edge, error
    assert best_edge(counts, size - 1) == best


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.one_of(st.integers(0, 40), st.just(math.inf)))
def test_a_search_under_any_ceiling_finds_the_same_edge_or_returns_minus_1(quarters: list[int], ceiling: float) -> None:
    errors = [1 + mse._TIE * quarter / 4 for quarter in quarters]  # ties and chains of ties abound
    last = 63 + len(errors) - 1
    search: Any = widest_best
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mse, "squared_error", lambda counts, moments, edge, ceiling: errors[last + 1 - edge])
        best, least = last + 1, math.inf
        for position, error in enumerate(errors):
            if error < least * (1 - mse._TIE):
                best, least = last + 1 - position, error
        result = search.py_func(np.zeros(1), np.zeros(1), last, 1 + mse._TIE * ceiling / 4)
    assert result == best or (result == -1 and ceiling < math.inf)


def test_no_edge_is_better_on_the_histogram() -> None:
    values = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    tensor = measure(values)
    counts = tensor.histogram.counts.astype(np.float64)
    counts[0] -= tensor.zeros
    chosen = best_edge(counts, tensor.histogram.last_bin)
    least = exact_squared_error(counts, chosen)
    for edge in {*range(chosen - 3, chosen + 4), *range(64, tensor.histogram.last_bin + 2, 500)}:
        assert exact_squared_error(counts, edge) >= least * (1 - 1e-9)


def test_outliers_are_clipped_and_plain_data_is_not() -> None:
    normal = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    # Balance of (50 - T)**2 / n (clipping one value) and (T / 127)**2 / 12 (rounding all) is at T = 8.1.
    assert Mse().amax(measure(np.append(normal, np.float32(50)))) == pytest.approx(8.1, abs=0.5)
    uniform = np.linspace(-1, 1, 100_000, dtype=np.float32)
    assert Mse().amax(measure(uniform)) > 0.98


def test_zeros_cost_nothing_so_they_do_not_change_the_range() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    assert Mse().amax(measure(np.append(values, np.zeros(10**6, np.float32)))) == Mse().amax(measure(values))


@pytest.mark.parametrize("values", [[], [0.0] * 5, [np.nan]], ids=["no values", "dead", "nothing finite"])
def test_a_tensor_without_a_range_has_none(values: list[float]) -> None:
    assert Mse().amax(measure(np.array(values, np.float32))) == 0


@pytest.mark.parametrize("value", [1e-44, 1e-37, 1.0, 3e38])
def test_never_exceeds_the_data_at_any_magnitude(value: float) -> None:
    tensor = measure(np.array([value, value / 2], np.float32))
    assert 0 < Mse().amax(tensor) <= tensor.amax
