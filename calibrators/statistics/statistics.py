"""The statistics of all tensors of one model over one data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import StatisticsError
from trt_ptq.provenance import DataFingerprint, ModelIdentity, Shard, join_shards

_TWICE = "two of the statistics are of the same data, which would count twice: give each shard once"
_PERHAPS_TWICE = (
    "shards stand beside a whole run, or beside shards of another division of as many batches: what is in both would "
    "count twice; merge all shards of each data set by itself first"
)


@dataclass(frozen=True)
class Statistics:
    """Measured once; every range method works from this, without data and without the model.

    `shares_range` maps a tensor that was not measured to the measured one whose range it takes
    (views, and inputs of max-pool and concat, which take the range of their output).
    `tools` are the versions of what measured it. `shards` are the parts that these are of, where others are missing.
    """

    model: ModelIdentity
    data: DataFingerprint
    tools: tuple[str, ...]
    tensors: Mapping[str, TensorStatistics]
    shares_range: Mapping[str, str] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", tuple(sorted(set(self.tools))))  # merged shards name them in the same order

    def merge(self, other: Statistics) -> Statistics:
        """Statistics over both data sets: exact, associative, commutative.

        Raises:
            StatisticsError: other model, other tensors, or the very same data twice.
        """
        merged = self.merge_disjoint(other)
        if self.data == other.data:
            raise StatisticsError(_TWICE)
        return merged

    def merge_disjoint(self, other: Statistics) -> Statistics:
        """As `merge`, for parts that are known not to be the same one twice, even if their samples are equal.

        Raises:
            StatisticsError: other model, other tensors, or the same shard twice.
        """
        difference = self.model.difference(other.model)
        if difference:
            raise StatisticsError(f"statistics of two models cannot be merged: {difference}")
        if self.tensors.keys() != other.tensors.keys() or self.shares_range != other.shares_range:
            unshared = sorted(self.tensors.keys() ^ other.tensors.keys())
            named = ", ".join(unshared[:3]) or "shared ranges"
            raise StatisticsError(
                f"statistics of different tensors cannot be merged ({named}): "
                "collect all shards with the same --tensors"
            )
        return Statistics(
            model=self.model,
            data=self.data + other.data,
            tools=self.tools + other.tools,
            tensors={name: self.tensors[name].merge(other.tensors[name]) for name in sorted(self.tensors)},
            shares_range=self.shares_range,
            shards=join_shards(self.shards, other.shards),
        )


def merge_statistics(parts: Iterable[Statistics]) -> Statistics:
    """Merge any number of shards, two in memory at a time; the order does not matter.

    Raises:
        StatisticsError: no shards, shards that do not belong together, or that may hold the same data.
    """
    merged: Statistics | None = None
    seen: set[DataFingerprint] = set()
    wholes, given = 0, list[Shard]()
    for shard in parts:
        merged = shard if merged is None else merged.merge_disjoint(shard)
        wholes += not shard.shards
        given += shard.shards
        if shard.data in seen:
            raise StatisticsError(_TWICE)
        seen.add(shard.data)
    if merged is None:
        raise StatisticsError("nothing to merge")
    join_shards(given, ())  # none is there twice, also of those that were complete on the way
    divisions = {(one.batches, one.count) for one in given}
    if (wholes and given) or len(divisions) > len({batches for batches, _ in divisions}):
        raise StatisticsError(_PERHAPS_TWICE)
    return merged
