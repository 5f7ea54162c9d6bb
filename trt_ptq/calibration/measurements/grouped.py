"""Statistics of groups of batches, such as texts of one length, beside those of all batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.provenance import DataFingerprint


class GroupedStatistics:
    """Records the statistics of each `Batch.group` in a calibration that runs from its beginning to its end.

    They cost memory for each group and tensor, and no time: every value is counted once.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, dict[str, TensorStatistics]] = {}
        self._data: dict[str, DataFingerprint] = {}

    def record(
        self, tensors: Mapping[str, Mapping[str, TensorStatistics]], data: Mapping[str, DataFingerprint]
    ) -> None:
        """Add the tensors of a pass, by group, and the data of each group, which are the same in every pass."""
        for group, measured in tensors.items():
            self._tensors.setdefault(group, {}).update(measured)
        self._data.update(data)

    def statistics(self, whole: Statistics) -> dict[str, Statistics]:
        """The statistics by group; `whole` are those of all batches."""
        return {
            group: replace(whole, data=self._data[group], tensors={name: tensors[name] for name in whole.tensors})
            for group, tensors in self._tensors.items()
        }
