"""Entropy chooses the bin that NVIDIA's published text chooses, followed literally."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.calibrators.measured import measure
from trt_ptq.calibrators.methods import Entropy, entropy
from trt_ptq.calibrators.methods.entropy import LEVELS, best_bin, cumulative, divergence, widest_best, without_gaps
from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.kernels import BINS

Counts = npt.NDArray[np.int64]


def literal_gap_filling(counts: Counts) -> list[float]:
    """The first bin is discarded; an occupied bin shares its counts evenly with the empty bins just below it."""
    filled = [0.0] * len(counts)
    below = 0
    for i in range(1, len(counts)):
        if counts[i]:
            for j in range(below + 1, i + 1):
                filled[j] = float(counts[i]) / (i - below)
            below = i
    return filled


def literal_divergences(counts: Counts) -> dict[int, float]:
    """For each bin B, NVIDIA's calibration.md step by step, in nats."""
    histogram = literal_gap_filling(counts)
    last = max(i for i, count in enumerate(histogram) if count)
    total = sum(histogram)
    divergences = {}
    for b in range(LEVELS, last + 1):
        # "truncate": all beyond B is folded into B
        truncated = histogram[: b + 1]
        truncated[b] += sum(histogram[b + 1 :])
        # a coarse histogram of 127 equal bins between 0 and the midpoint of B; what is in B goes to the last one
        level_of = [min(math.floor((i + 0.5) * LEVELS / (b + 0.5)), LEVELS - 1) for i in range(b + 1)]
        coarse = [0.0] * LEVELS
        bins_of = [0] * LEVELS
        for i in range(1, b + 1):
            coarse[level_of[i]] += truncated[i]
            bins_of[level_of[i]] += 1
        # the divergence of the one from the other, spread evenly again
        divergence = 0.0
        for i in range(1, b + 1):
            if truncated[i]:
                spread = coarse[level_of[i]] / bins_of[level_of[i]]
                divergence += truncated[i] / total * math.log(truncated[i] / spread)
        divergences[b] = divergence
    return divergences


def literal_best_bin(divergences: dict[int, float]) -> int:
    """The widest of those with the least divergence; equal means within the rounding of their sums."""
    best, least = max(divergences), math.inf
    for b in sorted(divergences, reverse=True):
        if divergences[b] < least - 1e-9:
            best, least = b, divergences[b]
    return best


def histogram_of(size: int, seed: int, shape: str) -> Counts:
    """Random counts in bins up to `size`: bell-shaped, heavy-tailed, sparse, of few levels, or of no shape."""
    generator = np.random.default_rng(seed)
    index = np.arange(size)
    if shape == "bell":
        counts = generator.poisson(1000 * np.exp(-((index / (size / generator.uniform(2, 8))) ** 2)))
    elif shape == "tail":
        counts = generator.poisson(3000 / (1 + index) ** generator.uniform(0.5, 2))
    elif shape == "sparse":
        counts = generator.integers(0, 100, size) * (generator.random(size) < 0.05)
    elif shape == "levels":
        counts = np.where(index % generator.integers(5, 40) == 0, generator.integers(1, 50, size), 0)
    else:
        counts = generator.integers(0, 2**40, size)
    full = np.zeros(BINS, np.int64)
    full[:size] = counts
    full[size - 1] += 1
    return full


@settings(max_examples=60)
@given(
    st.integers(2, 700), st.integers(0, 2**32 - 1), st.sampled_from(["bell", "tail", "sparse", "levels", "shapeless"])
)
def test_selects_the_bin_of_the_literal_reference(size: int, seed: int, shape: str) -> None:
    counts = histogram_of(size, seed, shape)
    histogram = Histogram(0, counts)
    result = best_bin(without_gaps(histogram), histogram.last_bin)
    if size <= LEVELS:
        assert result == size - 1
        return
    divergences = literal_divergences(counts)
    expected = literal_best_bin(divergences)
    if result != expected:  # both sums round: only a tie to the last digits may be decided otherwise
        assert divergences[result] == pytest.approx(divergences[expected], abs=3e-9)
        assert abs(abs(divergences[result] - divergences[expected]) - 1e-9) < 1e-11


@pytest.mark.parametrize("shape", ["bell", "tail", "sparse", "levels", "shapeless"])
def test_the_divergence_of_every_bin_is_that_of_the_literal_reference(shape: str) -> None:
    """Also of bins 190, 317 and 444, where the border of a coarse bin falls on the middle of a bin."""
    counts = histogram_of(460, 3, shape)
    mass, entropy = cumulative(without_gaps(Histogram(0, counts)), 459)
    for candidate, expected in literal_divergences(counts).items():
        assert divergence(mass, entropy, candidate, math.inf) / mass[-1] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("shape", ["bell", "tail", "sparse", "levels"])
def test_selects_the_bin_of_the_literal_reference_on_a_full_histogram(shape: str) -> None:
    counts = histogram_of(2200, 7, shape)
    histogram = Histogram(0, counts)
    assert best_bin(without_gaps(histogram), histogram.last_bin) == literal_best_bin(literal_divergences(counts))


@given(
    st.integers(LEVELS + 1, BINS),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["bell", "tail", "sparse", "levels", "shapeless"]),
)
def test_stopping_sums_early_selects_the_same_bin(size: int, seed: int, shape: str) -> None:
    filled = without_gaps(Histogram(0, histogram_of(size, seed, shape)))
    mass, entropy = cumulative(filled, size - 1)
    best, least = size - 1, math.inf
    for candidate in range(size - 1, LEVELS - 1, -1):
        lost = divergence(mass, entropy, candidate, math.inf)
        if lost < least - 1e-9 * mass[-1]:
            best, least = candidate, lost
    assert best_bin(filled, size - 1) == best


@given(
    st.integers(LEVELS + 1, BINS), st.integers(0, 2**32 - 1), st.sampled_from(["bell", "tail", "levels", "shapeless"])
)
def test_a_sum_stops_early_only_above_the_ceiling(size: int, seed: int, shape: str) -> None:
    mass, entropy = cumulative(without_gaps(Histogram(0, histogram_of(size, seed, shape))), size - 1)
    for candidate in range(LEVELS, size, 97):
        whole = divergence(mass, entropy, candidate, math.inf)
        assert divergence(mass, entropy, candidate, whole) == whole
        assert divergence(mass, entropy, candidate, whole - 1e-6 * mass[-1]) >= whole


quarters = st.integers(0, 40).map(lambda quarters: quarters / 4)  # of a tie: ties and chains of ties abound


@given(st.lists(quarters, min_size=1, max_size=12), st.one_of(quarters, st.just(math.inf)))
def test_a_search_under_any_ceiling_finds_the_same_bin_or_returns_minus_1(losses: list[float], ceiling: float) -> None:
    last = LEVELS + len(losses) - 1
    search: Any = widest_best
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "divergence", lambda mass, _, candidate, ceiling: losses[last - candidate])
        patch.setattr(entropy, "_TIE", 1.0)
        best, least = last, math.inf
        for position, lost in enumerate(losses):
            if lost < least - 1:
                best, least = last - position, lost
        result = search.py_func(np.ones(1), np.ones(1), last, ceiling)
    assert result == best or (result == -1 and ceiling < math.inf)
    if ceiling > max(losses) + 1:
        assert result == best


@given(st.integers(2, BINS), st.integers(0, 2**32 - 1), st.sampled_from(["bell", "sparse", "levels"]))
def test_filling_gaps_keeps_every_count_above_the_first_bin(size: int, seed: int, shape: str) -> None:
    counts = histogram_of(size, seed, shape)
    filled = without_gaps(Histogram(0, counts))
    assert filled.tolist() == literal_gap_filling(counts)
    assert filled.sum() == pytest.approx(counts[1:].sum(), rel=1e-12)
    assert (filled[1:size] > 0).all()


def test_the_range_is_the_centre_of_the_bin() -> None:
    tensor = measure(np.random.default_rng(0).standard_normal(100_000).astype(np.float32))
    bins = Entropy().amax(tensor) / tensor.histogram.bin_width
    assert bins % 1 == 0.5


@pytest.mark.parametrize(
    ("maximum", "published"), [(1.0, "3c010a14"), (2.64, "3caa54fc"), (151.061, "3f9849a2")], ids=str
)
def test_image_like_inputs_get_the_published_full_range(maximum: float, published: str) -> None:
    """TensorRT's own grid has 2048 bins up to the maximum, ours has a power of two a unit: the same to within a bin,
    and bit for bit where the maximum is a power of two."""
    pixels = np.random.default_rng(0).integers(0, 256, 200_000)
    tensor = measure((np.append(pixels, 255) / 255 * maximum).astype(np.float32))
    scale = Entropy().amax(tensor) / 127
    assert scale == pytest.approx(struct.unpack(">f", bytes.fromhex(published))[0], rel=1 / 2048)
    assert Entropy().amax(tensor) == (tensor.histogram.last_bin + 0.5) * tensor.histogram.bin_width
    if maximum == 1.0:
        assert struct.pack(">f", scale).hex() == published


@pytest.mark.parametrize("values", [[0.7], [-0.7], [0.3, 0.7], [-0.7, 0.1, 0.1], [0.0, 1.0]], ids=str)
def test_constant_and_two_level_data_keep_their_full_range(values: list[float]) -> None:
    tensor = measure(np.array(values * 1000, np.float32))
    assert Entropy().amax(tensor) == pytest.approx(tensor.amax, abs=tensor.histogram.bin_width)


def test_a_lonely_outlier_is_clipped() -> None:
    normal = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    assert Entropy().amax(measure(np.append(normal, np.float32(100)))) < 20


@given(st.integers(0, 1000), st.integers(-30, 30))
def test_scaling_the_data_by_a_power_of_two_scales_the_range(seed: int, exponent: int) -> None:
    values = np.random.default_rng(seed).standard_normal(2000).astype(np.float32)
    assert (
        Entropy().amax(measure(values * np.float32(2.0**exponent))) == Entropy().amax(measure(values)) * 2.0**exponent
    )


def test_a_fraction_too_small_for_float64_does_not_change_the_result() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[1:1000] = 2**53
    counts[4095] = 1
    histogram = Histogram(0, counts)
    assert best_bin(without_gaps(histogram), histogram.last_bin) == 4095


@pytest.mark.parametrize("values", [[], [0.0] * 5, [np.nan]], ids=["no values", "dead", "nothing finite"])
def test_a_tensor_without_a_range_has_none(values: list[float]) -> None:
    assert Entropy().amax(measure(np.array(values, np.float32))) == 0


def test_nothing_but_the_first_bin_keeps_the_maximum() -> None:
    tensor = measure(np.array([1e-40], np.float32))
    assert Entropy().amax(tensor) == tensor.amax > 0
