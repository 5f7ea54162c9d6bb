"""The differences between two tables."""

from __future__ import annotations

from dataclasses import dataclass

from trt_ptq.calibrators.table.calibration_table import CalibrationTable


@dataclass(frozen=True)
class ChangedRange:
    """A tensor whose scale differs; `before` and `after` are its amax."""

    name: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """`after` / `before`."""
        return self.after / self.before


@dataclass(frozen=True)
class TableDifference:
    """Tensors in one table only, and those whose scale differs, the largest change first."""

    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    changed: tuple[ChangedRange, ...]
    equal: int

    @property
    def identical(self) -> bool:
        """Whether both tables have the same tensors and scales."""
        return not (self.only_before or self.only_after or self.changed)


def diff_tables(before: CalibrationTable, after: CalibrationTable) -> TableDifference:
    """Compare two tables by their float32 scales, as TensorRT uses them."""
    shared = [name for name in before.amax if name in after.amax]
    changed = [
        ChangedRange(name, before.amax[name], after.amax[name])
        for name in shared
        if before.scale(name) != after.scale(name)
    ]
    return TableDifference(
        only_before=tuple(sorted(before.amax.keys() - after.amax.keys())),
        only_after=tuple(sorted(after.amax.keys() - before.amax.keys())),
        changed=tuple(sorted(changed, key=lambda change: -max(change.ratio, 1 / change.ratio))),
        equal=len(shared) - len(changed),
    )
