"""One part of the data of several, so that machines which know nothing of each other measure it together."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from trt_ptq.errors import DataError, UsageError
from trt_ptq.provenance import Shard, missing_shards
from trt_ptq.types import Batch, BatchSource

_NAMED = 5


@runtime_checkable
class Divisible(BatchSource, Protocol):
    """A source that gives any batch of `range(total)` without reading the others."""

    @property
    def total(self) -> int: ...

    def batch(self, index: int) -> Batch: ...


class EmptyShardError(DataError):
    """There are more shards than batches, and this one got none."""


@dataclass
class ShardedSource:
    """Every `count`-th batch of `source` from number `index` on; the shards 0 to count - 1 are all of it.

    Whole batches, because ONNX Runtime may round otherwise for another batch size; every n-th, so that shards differ
    by one batch at most and a source that is sorted by size or class is spread evenly. A source that is not
    `Divisible` is run through, and the others' batches are dropped.
    """

    source: BatchSource
    index: int
    count: int
    _batches: int = field(default=0, init=False)  # of the source, once it has been gone through

    @property
    def total(self) -> int | None:
        whole = self.source.total
        return None if whole is None else len(range(self.index, whole, self.count))

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches.

        Raises:
            EmptyShardError: the source has batches, but none for this shard.
        """
        if isinstance(self.source, Divisible):
            whole = self.source.total
            yield from map(self.source.batch, range(self.index, whole, self.count))
        else:
            whole = 0
            for whole, batch in enumerate(self.source, start=1):
                if (whole - 1) % self.count == self.index:
                    yield batch
        self._batches = whole
        if 0 < whole <= self.index:
            raise EmptyShardError(
                f"shard {self.index}/{self.count} has nothing to do: the data has {whole} batches, so use "
                f"{whole} shards at most; the other shards are complete without it"
            )

    @property
    def shard(self) -> Shard:
        """Which part of the data this is; to be asked after a full pass."""
        return Shard(self.index, self.count, self._batches)


def parse_shard(text: str) -> tuple[int, int]:
    """(index, count) from "3/8".

    Raises:
        UsageError: not of this form, or an index that is not one of 0 to count - 1.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None or int(found[2]) == 0:
        raise UsageError(f"{text!r} is no shard: write INDEX/COUNT, e.g. 0/8 for the first of eight")
    index, count = int(found[1]), int(found[2])
    if index >= count:
        raise UsageError(
            f"there is no shard {index}/{count}: shards count from 0, so {count} of them are 0/{count} to "
            f"{count - 1}/{count} (for SLURM: --array=0-{count - 1})"
        )
    return index, count


def incomplete(shards: Collection[Shard]) -> list[str]:
    """A warning that names the missing shards, if there are any."""
    missing = list(map(str, missing_shards(shards)))
    if not missing:
        return []
    named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    verb = "shard {} is" if len(missing) == 1 else "shards {} are"
    return [f"a part of the data is not in it: {verb.format(named)} missing"]
