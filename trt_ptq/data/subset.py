"""Holding batches out of calibration, to judge the result on data that did not make it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trt_ptq.errors import DataError
from trt_ptq.types import Batch, BatchSource, sample_count

EVERY = 5
_FIRST_HELD_OUT = 1  # the second batch, so that two are enough


@dataclass(frozen=True)
class OneInFive:
    """One batch in five of `source` (held out), or the other four."""

    source: BatchSource
    held_out: bool

    @property
    def total(self) -> int | None:
        if self.source.total is None:
            return None
        held_out = (self.source.total + EVERY - 1 - _FIRST_HELD_OUT) // EVERY
        return held_out if self.held_out else self.source.total - held_out

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self.source):
            if (index % EVERY == _FIRST_HELD_OUT) == self.held_out:
                yield batch


def split_source(source: BatchSource, test: BatchSource | None) -> tuple[BatchSource, BatchSource]:
    """(calibration, held out): the test source, or else one batch in five of `source`.

    Raises:
        DataError: a single batch cannot be split.
    """
    if test is not None:
        return source, test
    batches = iter(source)
    if next(batches, None) is not None and next(batches, None) is None:
        raise DataError(
            "the data is a single batch, and one in five is held out for the comparison: give --test-data, or several "
            "batches (of one .npz, .npy or images by a lower --batch-size; in a folder, each .npz is a batch)"
        )
    return OneInFive(source, held_out=False), OneInFive(source, held_out=True)


@dataclass(frozen=True)
class EveryOther:
    """The batches 0, 2, 4, ... of `source`, or (`odd`) the others."""

    source: BatchSource
    odd: bool

    @property
    def total(self) -> int | None:
        return None if self.source.total is None else (self.source.total + (not self.odd)) // 2

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self.source):
            if index % 2 == self.odd:
                yield batch


def two_halves(source: BatchSource) -> tuple[BatchSource, BatchSource]:
    """Two disjoint halves: to choose by, and to judge on; both are `source` itself if it is a single batch."""
    batches = iter(source)
    next(batches, None)
    if next(batches, None) is None:
        return source, source
    return EveryOther(source, odd=False), EveryOther(source, odd=True)


@dataclass(frozen=True)
class FirstSamples:
    """The first batches of `source` that hold `samples` samples; a DataError if it has none."""

    source: BatchSource
    samples: int

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        for batch in self.source:
            yield batch
            seen += sample_count(batch.feeds)
            if seen >= self.samples:
                return
        if not seen:
            raise DataError("the data has no batches")


@dataclass(frozen=True)
class FewBatches:
    """`count` batches of `source`, evenly spread over it where its length is known, else the first ones."""

    source: BatchSource
    count: int

    @property
    def total(self) -> int | None:
        return None if self.source.total is None else min(self.count, self.source.total)

    def __iter__(self) -> Iterator[Batch]:
        step = max((self.source.total or 0) // self.count, 1)
        yield from islice(self.source, 0, step * self.count, step)
