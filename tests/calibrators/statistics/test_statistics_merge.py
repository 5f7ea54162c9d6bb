"""Merging Statistics: exact in any order, and refused where it would mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise, permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.calibrators.statistics.statistics import Statistics, merge_statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator
from trt_ptq.errors import StatisticsError
from trt_ptq.provenance import DataFingerprint, ModelIdentity, Shard

MODEL = ModelIdentity("graph", "weights")
SAMPLES = np.random.default_rng(0).standard_normal((24, 50)).astype(np.float32)


def statistics_over(indices: Sequence[int]) -> Statistics:
    """One shard: an input "x" and a tensor "y" computed from it."""
    x, y = TensorAccumulator(), TensorAccumulator()
    batch = SAMPLES[list(indices)]
    x.update(batch)
    y.update(np.square(batch))
    return Statistics(
        model=MODEL,
        data=DataFingerprint.from_feeds({"x": batch}) if indices else DataFingerprint(),
        tools=("trt_ptq 1", "onnxruntime 1"),
        tensors={"x": x.statistics(), "y": y.statistics()},
        shares_range={"z": "y"},
    )


def test_the_representation_is_short() -> None:
    assert repr(statistics_over(range(4))) == "Statistics(2 tensors, 4 samples, model graph)"


@given(st.permutations(range(24)), st.lists(st.integers(1, 23), min_size=1, max_size=5, unique=True), st.randoms())
def test_any_shards_in_any_order_equal_one_pass(order: list[int], cuts: list[int], random: Random) -> None:
    borders = [0, *sorted(cuts), 24]
    shards = [statistics_over(order[start:stop]) for start, stop in pairwise(borders)]
    random.shuffle(shards)
    assert merge_statistics(shards) == statistics_over(range(24))


def test_merge_is_commutative_and_associative() -> None:
    shards = [statistics_over(range(0, 5)), statistics_over(range(5, 11)), statistics_over(range(11, 24))]
    left = [reduce(Statistics.merge, order) for order in permutations(shards)]
    right = [a.merge(b.merge(c)) for a, b, c in permutations(shards)]
    assert all(merged == left[0] for merged in left + right)


def test_a_single_shard_is_itself() -> None:
    assert merge_statistics([statistics_over(range(3))]) == statistics_over(range(3))


def test_nothing_to_merge_is_an_error() -> None:
    with pytest.raises(StatisticsError, match="nothing to merge"):
        merge_statistics([])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ModelIdentity("graph", "other"), "the weights differ"),
        (ModelIdentity("other", "weights"), "the graph differs"),
        (ModelIdentity("other", "other"), "both graph and weights differ"),
    ],
)
def test_another_model_is_refused_with_what_differs(other: ModelIdentity, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        merge_statistics([statistics_over([0]), replace(statistics_over([1]), model=other)])


def test_other_tensors_are_refused_by_name() -> None:
    shard = statistics_over([1])
    with pytest.raises(StatisticsError, match=r"\(y\).*--tensors"):
        merge_statistics([statistics_over([0]), replace(shard, tensors={"x": shard.tensors["x"]})])


def test_other_shared_ranges_are_refused() -> None:
    with pytest.raises(StatisticsError, match="shared ranges"):
        merge_statistics([statistics_over([0]), replace(statistics_over([1]), shares_range={})])


def test_the_same_data_twice_is_refused_even_in_another_order() -> None:
    with pytest.raises(StatisticsError, match="count twice"):
        statistics_over([0, 1]).merge(statistics_over([1, 0]))
    with pytest.raises(StatisticsError, match="count twice"):
        merge_statistics([statistics_over([0]), statistics_over([1]), statistics_over([0])])


def part(*indices: int, count: int, batches: int = 24) -> Statistics:
    """Every `count`-th sample from each of `indices` on, as `calibrate --shard` leaves it."""
    samples = [sample for sample in range(24) if sample % count in indices]
    shards = tuple(Shard(index, count, batches) for index in indices)
    return replace(statistics_over(samples), shards=shards if len(indices) < count else ())


@pytest.mark.parametrize(
    "parts",
    [
        [part(0, 1, 2, count=3), part(0, count=3), part(1, count=3), part(2, count=3)],
        [part(0, 1, count=3), part(2, count=3), part(0, count=3)],
        [part(0, 1, count=3), part(2, count=3), part(0, count=3), part(1, 2, count=3)],
        [part(0, 1, count=2), part(0, count=3)],
        [part(0, count=2), part(1, count=2), part(0, count=3), part(1, count=3), part(2, count=3)],
    ],
    ids=["whole and its shards", "two parts with one shard", "every shard twice", "whole and a part", "two divisions"],
)
def test_parts_that_may_overlap_are_refused_in_every_order(parts: list[Statistics]) -> None:
    for order in permutations(parts):
        with pytest.raises(StatisticsError, match=r"twice"):
            merge_statistics(order)


def test_parts_of_one_division_are_merged_in_every_order() -> None:
    for order in permutations([part(0, 2, count=4), part(1, count=4), part(3, count=4)]):
        assert merge_statistics(order) == statistics_over(range(24))


def test_parts_that_are_known_to_differ_may_hold_equal_samples() -> None:
    twice = statistics_over([0, 1]).merge_disjoint(statistics_over([1, 0]))
    assert twice.data.samples == 4
    assert twice.tensors == statistics_over([0, 1, 0, 1]).tensors


def test_shards_of_different_tools_name_all_of_them() -> None:
    merged = statistics_over([0]).merge(replace(statistics_over([1]), tools=("onnxruntime 2", "trt_ptq 1")))
    assert merged.tools == ("onnxruntime 1", "onnxruntime 2", "trt_ptq 1")
