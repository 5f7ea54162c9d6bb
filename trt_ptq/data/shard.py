"""Shards of the data, for independent machines that calibrate on a part each."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from trt_ptq.errors import DataError, UsageError
from trt_ptq.provenance import Shard, missing_shards
from trt_ptq.types import Batch, BatchSource, is_indexed

_NAMED = 5


class EmptyShardError(DataError):
    """There are more shards than batches, so this shard has none."""


@dataclass
class ShardedSource:
    """Every `count`-th batch of `source` from batch `index` on; the shards 0 to count - 1 together are all batches.

    Whole batches, because ONNX Runtime may round differently for another batch size; every n-th, so that shards differ
    by one batch at most and a source that is sorted by size or class is spread evenly. A source that is not indexed is
    iterated over, and the batches of other shards are dropped.
    """

    source: BatchSource
    index: int
    count: int
    _batches: int = field(default=0, init=False)  # of the source, known after a pass

    @property
    def total(self) -> int | None:
        whole = self.source.total
        return None if whole is None else len(range(self.index, whole, self.count))

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches.

        Raises:
            EmptyShardError: the source has batches, but none for this shard.
        """
        if is_indexed(self.source):
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
                f"shard {self.index}/{self.count} has no batches: the data has {whole}, so use "
                f"{whole} shards at most; the other shards are complete without it"
            )

    @property
    def shard(self) -> Shard:
        """Which part of the data this is; valid after a full pass."""
        return Shard(self.index, self.count, self._batches)


def parse_shard(text: str) -> tuple[int, int]:
    """(index, count) from "3/8".

    Raises:
        UsageError: not of this form, or the index is not in 0 to count - 1.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or int(match[2]) == 0:
        raise UsageError(f"{text!r} is not a shard: write INDEX/COUNT, e.g. 0/8 for the first of eight")
    index, count = int(match[1]), int(match[2])
    if index >= count:
        raise UsageError(
            f"there is no shard {index}/{count}: shards count from 0, so {count} of them are 0/{count} to "
            f"{count - 1}/{count} (for SLURM: --array=0-{count - 1})"
        )
    return index, count


def incomplete(shards: Collection[Shard]) -> list[str]:
    """A warning that names the missing shards, if any."""
    missing = list(map(str, missing_shards(shards)))
    if not missing:
        return []
    named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    verb = "shard {} is" if len(missing) == 1 else "shards {} are"
    return [f"part of the data is missing: {verb.format(named)} not merged"]
