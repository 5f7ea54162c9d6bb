"""A TensorAccumulator counts every value exactly once, wherever it stands and however it arrives."""

from __future__ import annotations

import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ml_dtypes import bfloat16

from tests.calibrators.measured import measure
from trt_ptq.calibrators.statistics.kernels import BINS, MIN_EXPONENT
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator, TensorStatistics

Floats = npt.NDArray[np.float32]

BLOCK = 4096  # values that the kernel takes at a time
SPECIAL = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, 1.0, -1.0, 0.99999994, 127.0, -3.4028235e38, 3.4028235e38],
    np.float32,
)
NONFINITE = np.array([np.nan, np.inf, -np.inf], np.float32)


def any_bits(size: int) -> st.SearchStrategy[Floats]:
    """Float32 arrays of any bit pattern: NaN payloads, infinities, subnormals, both zeros and the whole range."""
    patterns = st.one_of(
        st.integers(0, 2**32 - 1),
        st.sampled_from(np.concatenate([SPECIAL, NONFINITE]).view(np.uint32).tolist()),
    )
    return arrays(np.uint32, st.integers(0, size), elements=patterns).map(lambda bits: bits.view(np.float32))


def reference(values: Floats) -> dict[str, Any]:
    """What the statistics must be, one value at a time, in float64, where scaling by a power of two is exact."""
    finite = [float(value) for value in values if math.isfinite(value)]
    exponent = max([math.frexp(value)[1] for value in finite if value], default=MIN_EXPONENT)
    exponent = max(exponent, MIN_EXPONENT)
    counts = np.zeros(BINS, np.int64)
    for value in finite:
        counts[math.floor(math.ldexp(abs(value), 12 - exponent))] += 1
    return {
        "count": len(finite),
        "zeros": sum(value == 0 for value in finite),
        "nonfinite": len(values) - len(finite),
        "minimum": min(finite, default=0.0),
        "maximum": max(finite, default=0.0),
        "exponent": exponent,
        "counts": counts.tolist(),
    }


def as_dict(statistics: TensorStatistics) -> dict[str, Any]:
    return {
        "count": statistics.count,
        "zeros": statistics.zeros,
        "nonfinite": statistics.nonfinite,
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
        "exponent": statistics.histogram.exponent,
        "counts": statistics.histogram.counts.tolist(),
    }


@given(any_bits(60))
@example(SPECIAL)
@example(-np.abs(SPECIAL))
@example(np.concatenate([SPECIAL, NONFINITE]))
@example(NONFINITE)
@example(np.array([-0.0], np.float32))
@example(np.array([1e-45, 3.4028235e38], np.float32))
def test_equals_a_literal_count_of_each_value(values: Floats) -> None:
    assert as_dict(measure(values)) == reference(values)


@pytest.mark.parametrize("growth", [np.arange(-149, 128), np.arange(127, -150, -1)], ids=["rising", "falling"])
def test_equals_the_literal_count_while_the_range_grows_by_276_powers_of_two(growth: npt.NDArray[np.int64]) -> None:
    values = np.ldexp(np.float64(1), growth).astype(np.float32)
    assert as_dict(measure(*values.reshape(-1, 1))) == reference(values)
    assert as_dict(measure(values)) == reference(values)


@given(any_bits(200), st.data())
def test_depends_on_nothing_but_the_multiset_of_values(values: Floats, data: st.DataObject) -> None:
    shuffled = values[np.array(data.draw(st.permutations(range(values.size))), np.int64)]
    cuts = sorted(data.draw(st.lists(st.integers(0, values.size), max_size=6)))
    assert measure(*np.split(shuffled, cuts)) == measure(values)


def test_a_part_without_any_finite_value_leaves_the_range_of_the_others() -> None:
    measured = measure(np.array([-2, -1], np.float32), np.array([np.inf, np.nan], np.float32))
    assert (measured.minimum, measured.maximum, measured.nonfinite) == (-2, -1, 2)


@given(any_bits(120), st.data())
def test_any_merge_tree_of_any_shards_equals_one_pass(values: Floats, data: st.DataObject) -> None:
    owner = np.array(data.draw(st.lists(st.integers(0, 4), min_size=values.size, max_size=values.size)), np.int64)
    shards = [measure(values[owner == shard]) for shard in range(5)]
    while len(shards) > 1:
        left = shards.pop(data.draw(st.integers(0, len(shards) - 1)))
        right = shards.pop(data.draw(st.integers(0, len(shards) - 1)))
        shards.append(left.merge(right))
    assert shards[0] == measure(values)


def test_a_large_random_tensor_equals_numpys_own_histogram() -> None:
    values = np.random.default_rng(1).standard_normal(1_000_003).astype(np.float32)
    measured = measure(values)
    expected, _ = np.histogram(np.abs(values), BINS, (0.0, 2.0**measured.histogram.exponent))
    assert np.array_equal(measured.histogram.counts, expected)
    assert (measured.minimum, measured.maximum) == (values.min(), values.max())


@pytest.mark.parametrize("bad", NONFINITE.tolist())
@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_nonfinite_values_are_counted_apart_at_every_border_of_a_block(bad: float, size: int) -> None:
    clean = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    for position in {0, size // 2, size - 1, min(BLOCK - 1, size - 1), min(BLOCK, size - 1), min(2 * BLOCK, size - 1)}:
        values = clean.copy()
        values[position] = bad
        measured, expected = measure(values), measure(np.delete(clean, position))
        assert (measured.nonfinite, measured.count) == (1, size - 1)
        assert (measured.histogram, measured.minimum, measured.maximum) == (
            expected.histogram,
            expected.minimum,
            expected.maximum,
        )


@given(st.sets(st.integers(0, 3 * BLOCK), max_size=30), st.sampled_from(NONFINITE.tolist()))
def test_nonfinite_values_anywhere_never_reach_a_bin(positions: set[int], bad: float) -> None:
    values = np.linspace(-3, 5, 3 * BLOCK + 1, dtype=np.float32)
    kept = np.delete(values, sorted(positions))
    values[sorted(positions)] = bad
    measured, expected = measure(values), measure(kept)
    assert measured.nonfinite == len(positions)
    assert measured.histogram == expected.histogram
    assert (measured.minimum, measured.maximum, measured.zeros) == (expected.minimum, expected.maximum, expected.zeros)


def test_a_block_of_nothing_but_nan_leaves_the_others_alone() -> None:
    values = np.concatenate([np.full(BLOCK, np.nan), np.full(BLOCK, 2.0), np.full(7, np.nan)]).astype(np.float32)
    measured = measure(values)
    assert (measured.count, measured.nonfinite, measured.minimum, measured.maximum) == (BLOCK, BLOCK + 7, 2.0, 2.0)


@given(any_bits(300))
def test_counts_add_up(values: Floats) -> None:
    measured = measure(values)
    assert measured.count + measured.nonfinite == values.size
    assert int(measured.histogram.counts.sum()) == measured.count
    assert measured.zeros <= int(measured.histogram.counts[0])


def test_update_returns_how_many_values_of_this_batch_were_not_finite() -> None:
    accumulator = TensorAccumulator()
    assert accumulator.update(np.array([1, np.nan, np.inf], np.float32)) == 2
    assert accumulator.update(np.array([1, 2], np.float32)) == 0
    assert accumulator.statistics().nonfinite == 2


@pytest.mark.parametrize(
    ("values", "minimum", "maximum"),
    [([3, 5], 3.0, 5.0), ([-5, -3], -5.0, -3.0), ([-0.0], 0.0, 0.0), ([np.nan], 0.0, 0.0), ([], 0.0, 0.0)],
    ids=["positive", "negative", "minus zero", "nothing finite", "empty"],
)
def test_one_sided_and_degenerate_data_keep_their_true_range(
    values: list[float], minimum: float, maximum: float
) -> None:
    measured = measure(np.array(values, np.float32))
    assert (measured.minimum, measured.maximum) == (minimum, maximum)
    assert not np.signbit(measured.minimum) or measured.minimum < 0


def test_float64_is_rounded_to_float32_first() -> None:
    assert measure(np.array([0.1, 1e300, -1e300])) == measure(np.array([0.1, np.inf, -np.inf], np.float32))


@pytest.mark.filterwarnings("error")
def test_float64_beyond_float32_gives_no_warning() -> None:
    assert measure(np.array([1e300])).nonfinite == 1


@pytest.mark.parametrize(
    "form",
    [
        lambda values: values[::-1],
        lambda values: np.asfortranarray(values.reshape(5, 7)),
        lambda values: values.astype(values.dtype.newbyteorder(">")),
        lambda values: np.frombuffer(b"x" + values.tobytes(), values.dtype, offset=1),
        lambda values: np.broadcast_to(values, (1, 35)),
        lambda values: np.stack([values, values], axis=1)[:, 0],
    ],
    ids=["reversed", "Fortran order", "big-endian", "unaligned", "read-only", "strided"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, bfloat16])
def test_the_layout_of_an_array_does_not_matter(form: Any, dtype: Any) -> None:
    values = np.random.default_rng(0).standard_normal(35).astype(dtype)
    assert measure(form(values)) == measure(values)


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("size", [100, BLOCK, 5 * BLOCK + 3])
def test_zeros_of_both_signs_are_counted_whatever_their_share(share: float, size: int) -> None:
    generator = np.random.default_rng(size)
    values = generator.standard_normal(size).astype(np.float32)
    values[generator.random(size) < share] = generator.choice(np.array([0.0, -0.0], np.float32))
    measured, nonzero = measure(values), measure(values[values != 0])
    expected = nonzero.histogram.counts.copy()
    expected[0] += measured.zeros
    assert measured.zeros == np.count_nonzero(values == 0)
    assert np.array_equal(measured.histogram.counts, expected)


def test_a_scalar_is_one_value() -> None:
    assert measure(np.array(3, np.float32)).count == 1


def test_counts_do_not_wrap_at_32_bits() -> None:
    half = measure(np.zeros(2**20, np.float32))
    for _ in range(13):
        half = half.merge(half)
    assert half.count == half.zeros == int(half.histogram.counts[0]) == 2**33


def test_a_snapshot_does_not_change_when_more_comes() -> None:
    accumulator = TensorAccumulator()
    accumulator.update(np.ones(10, np.float32))
    before = accumulator.statistics()
    accumulator.update(np.full(10, 1000, np.float32))
    assert before == measure(np.ones(10, np.float32))


def test_accumulators_in_a_pool_count_as_in_one_thread() -> None:
    generator = np.random.default_rng(0)
    batches = [
        [generator.standard_normal(20_000).astype(np.float32) * 2.0**step for step in range(6)] for _ in range(16)
    ]
    pooled = [TensorAccumulator() for _ in batches]
    with ThreadPoolExecutor(8) as pool:
        for step in range(6):
            list(pool.map(TensorAccumulator.update, pooled, [tensor[step] for tensor in batches]))
    assert [accumulator.statistics() for accumulator in pooled] == [measure(*tensor) for tensor in batches]


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    accumulator = TensorAccumulator()
    batch = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    accumulator.update(batch)
    tracemalloc.start()
    try:
        for _ in range(200):
            accumulator.update(batch)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 4096


def test_asymmetric_scale_and_zero_point_cover_the_range_with_zero_inside() -> None:
    assert measure(np.array([-1, 3], np.float32)).asymmetric_qparams() == (4 / 255, 64)
    assert measure(np.array([1, 3], np.float32)).asymmetric_qparams() == (3 / 255, 0)
    assert measure(np.array([-3, -1], np.float32)).asymmetric_qparams() == (3 / 255, 255)
    assert measure(np.zeros(3, np.float32)).asymmetric_qparams() == (0.0, 0)
