"""Data that is read once: each batch is produced a single time, whoever reads the source how often."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.data.opened import Indexed, Stream, numbers
from trt_ptq.data.scratch import Scratch
from trt_ptq.data.spool import SpooledSource
from trt_ptq.data.subset import Subset, evenly_spaced, split_source
from trt_ptq.errors import DataError
from trt_ptq.types import Batch, is_indexed

_BATCH_BYTES = 16


@dataclass
class Shuffling:
    """A stream of six batches that yields other ones in each pass; `passes` counts these, `produced` the batches."""

    passes: int = 0
    produced: list[int] = field(default_factory=list)
    total: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        for index in range(6):
            self.produced.append(index)
            yield Batch({"x": np.full((1, 4), 10 * self.passes + index, np.float32)}, f"batch {index}")


def test_all_passes_see_the_batches_of_the_first(tmp_path: Path) -> None:
    source = Shuffling()
    spool = SpooledSource(source, Scratch(tmp_path))
    assert numbers(spool) == numbers(spool) == [10, 11, 12, 13, 14, 15]
    assert (source.passes, source.produced) == (1, [0, 1, 2, 3, 4, 5])


def test_a_split_reads_the_source_once(tmp_path: Path) -> None:
    source = Shuffling()
    calibration, held_out = split_source(SpooledSource(source, Scratch(tmp_path)), None)
    assert numbers(calibration) == [10, 12, 13, 14, 15]
    assert numbers(held_out) == [11]
    assert source.produced == [0, 1, 2, 3, 4, 5]


def test_passes_may_overlap(tmp_path: Path) -> None:
    source = Shuffling()
    spool = SpooledSource(source, Scratch(tmp_path))
    first, second = iter(spool), iter(spool)
    assert [int(next(passed).feeds["x"][0, 0]) for passed in (first, first, second, second, second, first)] == [
        *(10, 11),
        *(10, 11, 12),
        12,
    ]
    assert source.produced == [0, 1, 2]


def test_an_indexed_source_reads_each_batch_once_and_only_those_that_are_asked_for(tmp_path: Path) -> None:
    source = Indexed(9)
    part = Subset(SpooledSource(source, Scratch(tmp_path)), 4)
    assert numbers(part) == numbers(part) == [0, 4, 8]
    assert source.read == [0, 4, 8]


def test_a_stream_that_was_read_to_its_end_has_a_length_and_random_access(tmp_path: Path) -> None:
    spool = SpooledSource(Stream(10), Scratch(tmp_path))
    list(islice(spool, 9))
    assert (spool.total, is_indexed(spool)) == (None, False)
    list(spool)
    assert (spool.total, is_indexed(spool), spool.batch(7).origin) == (10, True, "batch 7")
    assert numbers(evenly_spaced(spool, 4)) == [0, 2, 4, 6]


def test_a_length_that_is_wrong_does_not_matter(tmp_path: Path) -> None:
    spool = SpooledSource(Stream(3, total=5), Scratch(tmp_path))
    assert not is_indexed(spool)
    assert numbers(spool) == [0, 1, 2]
    assert spool.total == 3


def test_what_does_not_fit_is_read_again_and_that_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Shuffling()
    spool = SpooledSource(source, Scratch(tmp_path, 2 * _BATCH_BYTES + 1))
    with caplog.at_level(logging.WARNING, logger="trt_ptq"):
        assert numbers(spool) == [10, 11, 12, 13, 14, 15]
        assert numbers(spool) == [10, 11, 22, 23, 24, 25]
    assert "`scratch_limit` is reached (33 bytes)" in caplog.text
    assert len(caplog.records) == 1
    assert not is_indexed(spool)


def test_of_an_indexed_source_what_does_not_fit_is_read_again_by_itself(tmp_path: Path) -> None:
    source = Indexed(4)
    spool = SpooledSource(source, Scratch(tmp_path, 2 * _BATCH_BYTES))
    assert numbers(spool) == numbers(spool) == [0, 1, 2, 3]
    assert source.read == [0, 1, 2, 3, 2, 3]


def test_a_batch_whose_memory_is_reused_stays_what_it_was(tmp_path: Path) -> None:
    class Reusing:
        total = None
        buffer = np.zeros((1, 4), np.float32)

        def __iter__(self) -> Iterator[Batch]:
            for index in range(3):
                self.buffer[:] = index
                yield Batch({"x": self.buffer}, str(index))

    spool = SpooledSource(Reusing(), Scratch(tmp_path))
    assert [numbers(spool), numbers(spool)] == [[0, 1, 2], [0, 1, 2]]


def test_a_source_that_failed_is_not_at_its_end(tmp_path: Path) -> None:
    class FailingOnce:
        total = None
        passes = 0

        def __iter__(self) -> Iterator[Batch]:
            self.passes += 1
            for batch in Stream(4):
                if self.passes == 1 and batch.origin == "batch 2":
                    raise DataError("cannot be read now")
                yield batch

    spool = SpooledSource(FailingOnce(), Scratch(tmp_path))
    with pytest.raises(DataError, match="cannot be read now"):
        list(spool)
    assert numbers(spool) == [0, 1, 2, 3]
