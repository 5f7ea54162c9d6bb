"""How far a calibration has come."""

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
    """A calibration with `batches` of pass number `current` (from 0) over the data behind it.

    `statistics` are of the tensors of this pass, with its `data`, and of those of earlier passes, which went over the
    `full_data` data. `settings` are the options that the result depends on; `ranges` what a `Convergence` has taken;
    `where` the file that all this was read from.
    """

    statistics: Statistics
    passes: tuple[tuple[str, ...], ...]
    settings: Mapping[str, str]
    full_data: DataFingerprint = field(default_factory=DataFingerprint)
    current: int = 0
    batches: int = 0
    ranges: Mapping[str, dict[str, list[float]]] = field(default_factory=dict)
    where: str = ""

    def after(self, tensors: Tensors, data: DataFingerprint, batches: int) -> CalibrationState:
        """The same pass, further on."""
        together = replace(self.statistics, tensors={**self.statistics.tensors, **tensors}, data=data)
        return replace(self, statistics=together, batches=batches)

    def next_pass(self) -> CalibrationState:
        """The beginning of the next pass, as this one is over.

        Raises:
            DataError: this pass did not go over the same data as the ones before.
        """
        data = self.statistics.data
        if self.current and data != self.full_data:
            raise DataError(
                f"the data was not the same in pass {self.current + 1} ({data.samples} samples) as in pass 1 "
                f"({self.full_data.samples}): a loader must yield the same batches each time"
            )
        empty = replace(self.statistics, data=DataFingerprint())
        return replace(self, statistics=empty, full_data=data, current=self.current + 1, batches=0)

    def regrouped(self, passes: tuple[tuple[str, ...], ...]) -> CalibrationState:
        """The same with what is left in the groups of `passes`, if those are more: memory became less.

        Then the pass that was cut off is made anew.
        """
        if len(passes) <= len(self.passes):
            return self
        finished = self.passes[: self.current]
        measured = set(chain(*finished))
        left = (tuple(name for name in group if name not in measured) for group in passes)
        kept = {name: tensor for name, tensor in self.statistics.tensors.items() if name in measured}
        return replace(
            self,
            statistics=replace(self.statistics, tensors=kept, data=DataFingerprint()),
            passes=(*finished, *filter(None, left)),
            batches=0,
            ranges={},
        )

    def check_data(self, data: DataFingerprint) -> None:
        """Make sure that what an earlier run measured in this pass is `data`.

        Raises:
            DataError: it is not.
        """
        before = self.statistics.data
        if data != before:
            raise DataError(
                f"{self.where}: the data changed since this checkpoint: its first {self.batches} batches were other "
                f"ones ({before.samples} samples then, {data.samples} now): give the same data and --batch-size, or "
                "remove that file to start anew"
            )

    def difference(self, start: CalibrationState) -> str | None:
        """In what it does not go on from `start`, in words. Passes may be grouped otherwise."""
        kept, new = self.statistics, start.statistics
        model = kept.model.difference(new.model)
        if model:
            return f"of another model: {model}"
        unshared = sorted(set(chain(*self.passes)) ^ set(chain(*start.passes)))
        if unshared or kept.shares_range != new.shares_range:
            return f"of other --tensors ({', '.join(unshared[:3]) or 'shared ranges'})"
        if kept.tools != new.tools:
            return f"made by {', '.join(kept.tools)}, and this is {', '.join(new.tools)}"
        other = [name for name in start.settings if self.settings.get(name) != start.settings[name]]
        return f"with {other[0]} {self.settings.get(other[0])}, not {start.settings[other[0]]}" if other else None
