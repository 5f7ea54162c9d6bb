"""Parts of the data: the held-out fifth, halves, evenly spaced batches, the first samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.opened import Indexed, Stream, X, numbers
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.sources import ArraySource
from trt_ptq.data.subset import Head, Subset, evenly_spaced, split_source, two_halves
from trt_ptq.errors import DataError
from trt_ptq.types import BatchSource, is_indexed


class TestSubset:
    @given(st.integers(0, 30), st.integers(1, 6), st.sets(st.integers(0, 5)), st.none() | st.integers(0, 35))
    def test_indexed_sources_and_streams_give_the_same_batches(
        self, count: int, period: int, offsets: set[int], stop: int | None
    ) -> None:
        sources: list[BatchSource] = [Indexed(count), Stream(count, count)]
        indexed, stream = (Subset(source, period, tuple(offsets), stop) for source in sources)
        expected = [i for i in range(count) if i % period in offsets and (stop is None or i < stop)]
        assert numbers(indexed) == numbers(stream) == expected
        assert indexed.total == stream.total == len(expected)

    def test_an_unknown_total_stays_unknown(self) -> None:
        assert Subset(Stream(7), 2).total is None

    def test_only_the_batches_of_the_subset_are_read(self) -> None:
        source = Indexed(9)
        list(Subset(source, 4))
        assert source.read == [0, 4, 8]

    def test_a_subset_of_a_validated_subset_reads_only_its_batches(self) -> None:
        source = Indexed(9)
        nested = Subset(ValidatedSource(Subset(source, 2, (1,)), (X,)), 3)
        assert is_indexed(nested)
        assert [numbers(nested), source.read, nested.total] == [[1, 7], [1, 7], 2]

    def test_any_batch_of_an_indexed_subset_can_be_read(self) -> None:
        assert Subset(Indexed(9), 4).batch(2).origin == "batch 8"

    def test_a_subset_of_a_stream_is_not_indexed(self) -> None:
        assert not is_indexed(Subset(Stream(9), 4))


class TestSplit:
    @pytest.mark.parametrize("count", range(2, 23))
    def test_every_batch_is_on_one_side_and_one_in_five_is_held_out(self, count: int) -> None:
        calibration, held_out = split_source(Stream(count, count), None)
        assert sorted(numbers(calibration) + numbers(held_out)) == list(range(count))
        assert numbers(held_out) == list(range(1, count, 5))

    def test_both_sides_are_the_same_in_every_pass(self) -> None:
        for side in split_source(Stream(11), None):
            assert numbers(side) == numbers(side)

    def test_test_data_leaves_the_calibration_data_whole(self) -> None:
        source, test = Stream(1), Stream(3)
        assert split_source(source, test) == (source, test)

    @pytest.mark.parametrize("source", [Stream(1), Indexed(1)], ids=["stream", "indexed"])
    def test_a_single_batch_is_refused_with_what_to_do(self, source: BatchSource) -> None:
        with pytest.raises(DataError, match=r"a single batch, .*: give `test_data`, or several batches"):
            split_source(source, None)


class TestHalves:
    def test_the_halves_are_the_even_and_the_odd_batches(self) -> None:
        assert [numbers(half) for half in two_halves(Stream(5))] == [[0, 2, 4], [1, 3]]

    @pytest.mark.parametrize("source", [Stream(1), Indexed(1)], ids=["stream", "indexed"])
    def test_a_single_batch_is_both_halves(self, source: BatchSource) -> None:
        assert two_halves(source) == (source, source)


class TestEvenlySpaced:
    @pytest.mark.parametrize(
        ("total", "count", "expected"),
        [(10, 4, [0, 2, 4, 6]), (3, 8, [0, 1, 2]), (8, 8, list(range(8))), (9, 3, [0, 3, 6]), (5, 1, [0])],
    )
    def test_batches_are_spread_over_the_source(self, total: int, count: int, expected: list[int]) -> None:
        assert numbers(evenly_spaced(Indexed(total), count)) == expected

    def test_the_first_batches_are_used_if_the_total_is_unknown(self) -> None:
        assert numbers(evenly_spaced(Stream(10), 4)) == [0, 1, 2, 3]


class TestHead:
    @pytest.mark.parametrize(("samples", "batches"), [(1, 1), (4, 1), (5, 2), (100, 3)])
    def test_batches_are_read_until_there_are_enough_samples(self, samples: int, batches: int) -> None:
        source = ArraySource("x.npy", {"x": np.zeros((12, 4), np.float32)}, batch_size=4)
        assert len(list(Head(source, samples))) == batches

    def test_no_batch_at_all_is_refused(self) -> None:
        with pytest.raises(DataError, match="the data has no batches"):
            list(Head(Stream(0), 1))
