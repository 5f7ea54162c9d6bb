"""Parts of a data source: the held-out split, halves, the first samples, evenly spaced batches, parts of batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trt_ptq.errors import DataError
from trt_ptq.types import Batch, BatchSource, SourceView, is_indexed, sample_count

_PERIOD = 5  # one batch in five is held out
_HELD_OUT = 1  # the second of the five, so that two batches are enough


@dataclass(frozen=True)
class Subset(SourceView):
    """The batches of `source` whose index modulo `period` is in `offsets`, up to index `stop` (exclusive).

    Reads only these batches if the source is indexed; otherwise it iterates over the source and drops the others.
    """

    source: BatchSource
    period: int = 1
    offsets: tuple[int, ...] = (0,)
    stop: int | None = None

    @property
    def total(self) -> int | None:
        return None if self.source.total is None else len(self._indices(self.source.total))

    def batch(self, index: int) -> Batch:
        """Batch `index` of the subset; only for an indexed source."""
        assert is_indexed(self.source)
        return self.source.batch(self._indices(self.source.total)[index])

    def __iter__(self) -> Iterator[Batch]:
        if is_indexed(self.source):
            yield from map(self.source.batch, self._indices(self.source.total))
            return
        for index, batch in enumerate(islice(self.source, self.stop)):
            if index % self.period in self.offsets:
                yield batch

    def _indices(self, whole: int) -> list[int]:
        stop = whole if self.stop is None else min(self.stop, whole)
        return [index for index in range(stop) if index % self.period in self.offsets]


@dataclass(frozen=True)
class Head:
    """The first batches of `source` that have `samples` samples together, or all if it has fewer.

    Iterating over a source without batches raises a DataError.
    """

    source: BatchSource
    samples: int

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Batch]:
        read = 0
        for batch in self.source:
            yield batch
            read += sample_count(batch.feeds)
            if read >= self.samples:
                return
        if not read:
            raise DataError("the data has no batches")


@dataclass(frozen=True)
class SampleRange:
    """The samples `start` to `stop` (exclusive) of each batch of `source`; a batch without them is left out."""

    source: BatchSource
    start: int
    stop: int

    @property
    def total(self) -> int | None:
        return self.source.total

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.source:
            if sample_count(batch.feeds) > self.start:
                some = slice(self.start, self.stop)
                feeds = {name: array[some] if array.ndim else array for name, array in batch.feeds.items()}
                yield Batch(feeds, batch.origin)


def evenly_spaced(source: BatchSource, count: int) -> Subset:
    """`count` batches, evenly spaced over `source` if its length is known, else the first ones."""
    step = max((source.total or 0) // count, 1)
    return Subset(source, step, stop=step * (count - 1) + 1)


def split_source(source: BatchSource, test: BatchSource | None) -> tuple[BatchSource, BatchSource]:
    """Split into calibration and held-out data: `source` and `test`, or without `test` four batches in five and the
    fifth.

    Raises:
        DataError: a single batch cannot be split.
    """
    if test is not None:
        return source, test
    if _batches_up_to_two(source) == 1:
        raise DataError(
            "the data is a single batch, and one in five is held out for the comparison: give `test_data`, or several "
            "batches (a lower `batch_size` for one .npz, .npy or images; in a folder, each .npz is a batch)"
        )
    others = tuple(offset for offset in range(_PERIOD) if offset != _HELD_OUT)
    return Subset(source, _PERIOD, others), Subset(source, _PERIOD, (_HELD_OUT,))


def two_halves(source: BatchSource) -> tuple[BatchSource, BatchSource]:
    """The batches with even and with odd indices; both are `source` itself if it has a single batch."""
    if _batches_up_to_two(source) < 2:
        return source, source
    return Subset(source, 2, (0,)), Subset(source, 2, (1,))


def _batches_up_to_two(source: BatchSource) -> int:
    return len(list(islice(source, 2)))
