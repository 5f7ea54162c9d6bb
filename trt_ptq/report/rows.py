"""From statistics and a table to the rows of a report."""

from __future__ import annotations

import numpy as np

from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.table import CalibrationTable
from trt_ptq.report.schema import BARS, TensorRow

MUCH_CLIPPED = 0.005


def tensor_rows(statistics: Statistics, table: CalibrationTable) -> list[TensorRow]:
    """One row for each measured tensor that has a range, in the order of the statistics."""
    rows = []
    for name, tensor in statistics.tensors.items():
        if name not in table.amax:
            continue
        amax, histogram = table.amax[name], tensor.histogram
        beyond = histogram.counts[int(amax / histogram.bin_width) + 1 :].sum()
        scale, zero_point = tensor.asymmetric()
        rows.append(
            TensorRow(
                name=name,
                minimum=tensor.minimum,
                maximum=tensor.maximum,
                amax=amax,
                scale=float(table.scale(name)),
                clipped=float(beyond) / max(tensor.count, 1),
                nonfinite=tensor.nonfinite,
                asymmetric_scale=scale,
                asymmetric_zero_point=zero_point,
                bars=np.add.reduceat(histogram.counts, range(0, histogram.counts.size, 4096 // BARS)).tolist(),
                bars_end=2.0**histogram.exponent,
            )
        )
    return rows


def range_warnings(rows: list[TensorRow], method: str) -> list[str]:
    """What is suspicious about the chosen ranges, a sentence each."""
    warnings = []
    clipped = sorted((row for row in rows if row.clipped > MUCH_CLIPPED), key=lambda row: -row.clipped)
    if clipped:
        worst = clipped[0]
        warnings.append(
            f"method {method} clips more than {MUCH_CLIPPED:.1%} of the values of {len(clipped)} tensors, most of "
            f"{worst.name!r} ({worst.clipped:.1%} lie beyond {worst.amax:.4g}): try another method"
        )
    skipped = [row for row in rows if row.nonfinite]
    if skipped:
        warnings.append(
            f"{len(skipped)} tensors had NaN or infinite values, which were skipped, e.g. {skipped[0].nonfinite} in "
            f"{skipped[0].name!r}"
        )
    return warnings
