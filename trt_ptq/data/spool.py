"""A source whose data is read once: its batches are stored as they pass, and read from there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

from trt_ptq.data.scratch import Scratch, StoredArrays
from trt_ptq.data.sources import ArraySource, InMemorySource
from trt_ptq.types import Batch, BatchSource, SourceView, is_indexed


@dataclass(frozen=True)
class _StoredBatch:
    arrays: StoredArrays
    origin: str
    group: str

    def load(self) -> Batch:
        return Batch(self.arrays.load(), self.origin, self.group)


class SpooledSource(SourceView):
    """The batches of `source`, each of which is read from there once and then from `scratch`.

    All passes share one iteration over a source that is not indexed. A loader that yields other batches the next time
    is never asked for them. Only where `scratch` is full are the other batches read from `source` again.
    """

    def __init__(self, source: BatchSource, scratch: Scratch) -> None:
        self.source = source
        self._scratch = scratch
        self._stored: dict[int, _StoredBatch] = {}
        self._rest: Iterator[Batch] | None = None  # the iteration that all passes share
        self._num_read = 0  # batches that it has yielded
        self._total: int | None = None  # once it has ended

    @property
    def total(self) -> int | None:
        """The number of batches, if `source` knows it or was read to its end."""
        return self.source.total if self._total is None else self._total

    @property
    def is_indexed(self) -> bool:
        """Whether any batch can be read without reading others: also once all of them are stored."""
        return is_indexed(self.source) or (self._total is not None and len(self._stored) == self._total)

    def batch(self, index: int) -> Batch:
        """Batch `index`; only if the source is indexed."""
        if index in self._stored:
            return self._stored[index].load()
        assert is_indexed(self.source)
        return self._keep(index, self.source.batch(index))

    def __iter__(self) -> Iterator[Batch]:
        if is_indexed(self.source):
            yield from map(self.batch, range(self.source.total))
            return
        for index in count():
            if index in self._stored:
                yield self._stored[index].load()
            elif index < self._num_read:  # it did not fit, nor did any after it
                yield from islice(self.source, index, None)
                return
            elif (batch := self._read_next()) is not None:
                yield batch
            else:
                return

    def _read_next(self) -> Batch | None:
        """The next batch of the iteration that all passes share; None at its end."""
        if self._total is not None:
            return None
        if self._rest is None:
            self._rest = islice(self.source, self._num_read, None)
        try:
            batch = next(self._rest, None)
        except BaseException:
            self._rest = None  # a generator that failed would seem to be at its end
            raise
        if batch is None:
            self._total = self._num_read
            return None
        self._num_read += 1
        return self._keep(self._num_read - 1, batch)

    def _keep(self, index: int, batch: Batch) -> Batch:
        if (arrays := self._scratch.store(batch.feeds)) is not None:
            self._stored[index] = _StoredBatch(arrays, batch.origin, batch.group)
        return batch


def is_in_memory(source: BatchSource) -> bool:
    """Whether the batches of `source` are in memory already, so that there is no need to store them."""
    return isinstance(source, (ArraySource, InMemorySource))
