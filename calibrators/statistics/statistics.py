"""The statistics of all calibrated tensors of one model over one data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import StatisticsError
from trt_ptq.provenance import DataFingerprint, ModelIdentity, Shard, join_shards

if TYPE_CHECKING:
    from trt_ptq.calibrators.table.calibration_table import CalibrationTable

_SAME_DATA_TWICE = "two of the statistics cover the same data, which would count twice: give each shard once"
_OVERLAPPING_SHARDS = (
    "some statistics cover a whole data set and others shards, or shards of different divisions of as many batches: "
    "data in both would count twice; first merge all shards of each data set by itself"
)


@dataclass(frozen=True, repr=False)
class Statistics:
    """Activation statistics: collected once, they give the table of every range method without data or model.

    Attributes:
        model: Identity of the calibrated model.
        data: Fingerprint of the calibration data.
        tools: Versions of the packages that collected the statistics.
        tensors: Statistics by tensor name.
        shares_range: Tensors without statistics of their own, mapped to the tensor whose range they use: views, and
            the inputs of max-pooling and concatenation, which use the range of the output.
        shards: The shards of the data that these statistics cover, if others are missing.
    """

    model: ModelIdentity
    data: DataFingerprint
    tools: tuple[str, ...]
    tensors: Mapping[str, TensorStatistics]
    shares_range: Mapping[str, str] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", tuple(sorted(set(self.tools))))  # independent of the order of merging

    def __repr__(self) -> str:
        count, samples = len(self.tensors), self.data.samples
        return f"Statistics({count} tensors, {samples} samples, model {self.model.graph[:8]})"

    def table(self, method: str = "percentile", percentile: float | None = None) -> CalibrationTable:
        """Derive a calibration table.

        Args:
            method: "percentile", "entropy", "minmax" or "mse".
            percentile: For method "percentile": the percentage of magnitudes that are not clipped, above 0 and up to
                100. Default: 99.99.

        Returns:
            The dynamic range of each tensor.

        Raises:
            UsageError: Unknown method, or an invalid percentile.
        """
        from trt_ptq.calibrators.methods import range_method
        from trt_ptq.calibrators.table.calibration_table import derive_table

        return derive_table(self, range_method(method, percentile))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the statistics to `path`, a safetensors file, atomically.

        Raises:
            OutputError: `path` cannot be written.
        """
        from trt_ptq.calibrators.statistics.statistics_file import save_statistics

        save_statistics(self, Path(path))

    def merge(self, other: Statistics) -> Statistics:
        """Return the statistics over both data sets. Exact, associative and commutative.

        Raises:
            StatisticsError: Different models or tensors, or the same data twice.
        """
        merged = self.merge_disjoint(other)
        if self.data == other.data:
            raise StatisticsError(_SAME_DATA_TWICE)
        return merged

    def merge_disjoint(self, other: Statistics) -> Statistics:
        """Merge parts that are known to cover different batches, even if the samples in them are equal.

        Raises:
            StatisticsError: Different models or tensors, or the same shard twice.
        """
        difference = self.model.difference(other.model)
        if difference:
            raise StatisticsError(f"statistics of different models cannot be merged: {difference}")
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
    """Merge any number of shards, with two in memory at a time. The order does not matter.

    Raises:
        StatisticsError: No shards, shards that do not belong together, or that may cover the same data.
    """
    merged: Statistics | None = None
    seen: set[DataFingerprint] = set()
    complete, shards = 0, list[Shard]()
    for part in parts:
        merged = part if merged is None else merged.merge_disjoint(part)
        complete += not part.shards
        shards += part.shards
        if part.data in seen:
            raise StatisticsError(_SAME_DATA_TWICE)
        seen.add(part.data)
    if merged is None:
        raise StatisticsError("nothing to merge")
    join_shards(shards, ())  # also rejects duplicates among shards that were complete in between
    divisions = {(shard.batches, shard.count) for shard in shards}
    if (complete and shards) or len(divisions) > len({batches for batches, _ in divisions}):
        raise StatisticsError(_OVERLAPPING_SHARDS)
    return merged
