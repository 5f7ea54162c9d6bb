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
    """Tensors with a range that one table lacks, and those whose scale differs, the largest change first.

    `unusable_before` and `unusable_after` are in both tables, but their scale in one is zero, infinite or NaN.
    """

    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    changed: tuple[ChangedRange, ...]
    unusable_before: tuple[str, ...]
    unusable_after: tuple[str, ...]
    equal: int

    @property
    def identical(self) -> bool:
        """Whether both tables have the same tensors and scales."""
        return not (self.only_before or self.only_after or self.changed or self.unusable_before or self.unusable_after)


def diff_tables(before: CalibrationTable, after: CalibrationTable) -> TableDifference:
    """Compare two tables by their float32 scales, as TensorRT uses them."""
    shared = [name for name in before.amax if name in after.amax]
    changed = [
        ChangedRange(name, before.amax[name], after.amax[name])
        for name in shared
        if before.scale(name) != after.scale(name)
    ]
    unusable = [set(table.tensors_without_range) for table in (before, after)]
    return TableDifference(
        only_before=tuple(sorted(before.amax.keys() - after.amax.keys() - unusable[1])),
        only_after=tuple(sorted(after.amax.keys() - before.amax.keys() - unusable[0])),
        changed=tuple(sorted(changed, key=lambda change: -max(change.ratio, 1 / change.ratio))),
        unusable_before=tuple(sorted(unusable[0] & after.amax.keys())),
        unusable_after=tuple(sorted(unusable[1] & before.amax.keys())),
        equal=len(shared) - len(changed),
    )
