"""The state of a calibration in progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import DataError
from trt_ptq.provenance import DataFingerprint

Tensors = Mapping[str, TensorStatistics]


@dataclass(frozen=True)
class CalibrationState:
    """A calibration that has completed `batches` batches of pass `pass_index`.

    Attributes:
        statistics: Statistics of the tensors of earlier passes, and of this pass as far as it went; their `data` is
            that of this pass.
        passes: The names of the tensors of each pass.
        settings: Parameters that the result depends on, by name.
        full_data: Fingerprint of the data of the earlier passes.
        pass_index: The current pass, from 0.
        batches: Number of batches that the current pass has completed.
        ranges: The ranges that a `Convergence` has recorded.
        where: The checkpoint file that the state was read from.
    """

    statistics: Statistics
    passes: tuple[tuple[str, ...], ...]
    settings: Mapping[str, str]
    full_data: DataFingerprint = field(default_factory=DataFingerprint)
    pass_index: int = 0
    batches: int = 0
    ranges: Mapping[str, dict[str, list[float]]] = field(default_factory=dict)
    where: str = ""

    def after(self, tensors: Tensors, data: DataFingerprint, batches: int) -> CalibrationState:
        """Return the state of the same pass after `batches` batches."""
        statistics = replace(self.statistics, tensors={**self.statistics.tensors, **tensors}, data=data)
        return replace(self, statistics=statistics, batches=batches)

    def next_pass(self) -> CalibrationState:
        """Return the state at the start of the next pass, given that the current one is complete.

        Raises:
            DataError: The data of this pass differs from that of the earlier passes.
        """
        data = self.statistics.data
        if self.pass_index and data != self.full_data:
            raise DataError(
                f"the data was not the same in pass {self.pass_index + 1} ({data.samples} samples) as in pass 1 "
                f"({self.full_data.samples}): a loader must yield the same batches each time"
            )
        statistics = replace(self.statistics, data=DataFingerprint())
        return replace(self, statistics=statistics, full_data=data, pass_index=self.pass_index + 1, batches=0)

    def regrouped(self, passes: tuple[tuple[str, ...], ...]) -> CalibrationState:
        """Return the state with the remaining tensors in the groups of `passes`, if memory now requires more passes.

        The interrupted pass then starts again.
        """
        if len(passes) <= len(self.passes):
            return self
        finished = self.passes[: self.pass_index]
        measured = set(chain(*finished))
        remaining = (tuple(name for name in group if name not in measured) for group in passes)
        tensors = {name: tensor for name, tensor in self.statistics.tensors.items() if name in measured}
        return replace(
            self,
            statistics=replace(self.statistics, tensors=tensors, data=DataFingerprint()),
            passes=(*finished, *filter(None, remaining)),
            batches=0,
            ranges={},
        )

    def check_data(self, data: DataFingerprint) -> None:
        """Check that `data` is what the interrupted run measured in this pass.

        Raises:
            DataError: It is different data.
        """
        before = self.statistics.data
        if data != before:
            raise DataError(
                f"{self.where}: the data has changed since this checkpoint: its first {self.batches} batches were "
                f"different ({before.samples} samples then, {data.samples} now); use the same data and `batch_size`, "
                "or delete the checkpoint to start again"
            )

    def difference(self, start: CalibrationState) -> str | None:
        """Say why this state does not continue the calibration that begins with `start`; None if it does.

        The grouping into passes may differ.
        """
        before, now = self.statistics, start.statistics
        model = before.model.difference(now.model)
        if model:
            return f"of another model: {model}"
        unshared = sorted(set(chain(*self.passes)) ^ set(chain(*start.passes)))
        if unshared or before.shares_range != now.shares_range:
            return f"of other `tensors` ({', '.join(unshared[:3]) or 'shared ranges'})"
        if before.tools != now.tools:
            return f"made by {', '.join(before.tools)}, and this is {', '.join(now.tools)}"
        for name, value in start.settings.items():
            if self.settings.get(name) != value:
                return f"with `{name}={self.settings.get(name)}`, not {value}"
        return None
