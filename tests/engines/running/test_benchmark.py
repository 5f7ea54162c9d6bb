"""The statistics of a latency; the measurement itself needs a GPU (tests/gpu)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.engines.running.benchmark import summarize
from trt_ptq.errors import UsageError


def test_median_and_p99_are_over_the_runs_and_throughput_over_their_sum() -> None:
    latency = summarize([2.0] * 99 + [102.0], batch=8)
    assert (latency.runs, latency.batch, latency.median_ms) == (100, 8, 2.0)
    assert latency.p99_ms == pytest.approx(3.0)  # between the 99th and the 100th, linearly
    assert latency.throughput == pytest.approx(8 * 100 / 0.3)


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=50))
def test_the_order_of_the_runs_does_not_matter(times: list[float]) -> None:
    latency, of_sorted = summarize(times, 1), summarize(sorted(times), 1)
    assert (latency.median_ms, latency.p99_ms) == (of_sorted.median_ms, of_sorted.p99_ms)
    assert latency.throughput == pytest.approx(of_sorted.throughput)
    assert min(times) <= latency.median_ms <= latency.p99_ms <= max(times)


@pytest.mark.parametrize("times", [[], [0.0, 0.0], [1.0, math.nan]])
def test_invalid_times_are_refused(times: list[float]) -> None:
    with pytest.raises(UsageError, match="`times_ms` has no valid measurements"):
        summarize(times, 1)
