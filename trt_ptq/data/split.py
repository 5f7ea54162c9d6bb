"""Holding batches out of calibration, to judge the result on data that did not make it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trt_ptq.calibrators.batches import Batch, BatchSource
from trt_ptq.calibrators.errors import DataError

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
            "the data is a single batch, and one in five is held out for the comparison: "
            "lower --batch-size, or give --test-data"
        )
    return OneInFive(source, held_out=False), OneInFive(source, held_out=True)
