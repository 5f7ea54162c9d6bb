"""From statistics and a table to the rows of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.calibrators.table.table import CalibrationTable
from trt_ptq.graph.float16_range import KeptNode
from trt_ptq.report.schema import BARS, TensorRow

MUCH_CLIPPED = 0.001
NAMED = 5
FAR = 1.25  # a value that far beyond its range is off by a quarter of the range


def tensor_rows(statistics: Statistics, table: CalibrationTable) -> list[TensorRow]:
    """One row for each measured tensor that has a range, in the order of the statistics."""
    rows = []
    for name in _measured(statistics, table):
        tensor, amax = statistics.tensors[name], table.amax[name]
        histogram = tensor.histogram
        scale, zero_point = tensor.asymmetric()
        rows.append(
            TensorRow(
                name=name,
                minimum=tensor.minimum,
                maximum=tensor.maximum,
                amax=amax,
                scale=float(table.scale(name)),
                clipped=_beyond(tensor, amax),
                nonfinite=tensor.nonfinite,
                asymmetric_scale=scale,
                asymmetric_zero_point=zero_point,
                bars=np.add.reduceat(histogram.counts, range(0, histogram.counts.size, 4096 // BARS)).tolist(),
                bars_end=2.0**histogram.exponent,
            )
        )
    return rows


def range_warnings(statistics: Statistics, table: CalibrationTable, method: str) -> list[str]:
    """What is suspicious about the chosen ranges, a sentence each."""
    warnings = []
    clipped = {name: _beyond(statistics.tensors[name], table.amax[name] * FAR) for name in _measured(statistics, table)}
    much = {name: share for name, share in clipped.items() if share > MUCH_CLIPPED}
    if much:
        worst = max(much, key=lambda name: much[name])
        warnings.append(
            f"method {method} clips {len(much)} tensors hard, most of all {worst!r}: {much[worst]:.1%} of its values "
            f"lie more than {FAR - 1:.0%} beyond the range {table.amax[worst]:.4g}: try another method"
        )
    skipped = {name: tensor.nonfinite for name, tensor in statistics.tensors.items() if tensor.nonfinite}
    if skipped:
        name, count = next(iter(skipped.items()))
        warnings.append(
            f"{len(skipped)} tensors had NaN or infinite values, which were skipped, e.g. {count} in {name!r}"
        )
    if table.unscaled:
        warnings.append(f"always zero, so without a range: {', '.join(table.unscaled)}")
    return warnings


def kept_warnings(kept: Sequence[KeptNode]) -> list[str]:
    """Which nodes stay in FP32 because of float16's range: one sentence, or none."""
    named = [f"{one.op_type} {one.node!r} ({one.reason})" for one in kept if one.cause == "range"]
    if not named:
        return []
    more = f", and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return [f"{len(named)} nodes stay in FP32, beyond float16's range: {', '.join(named[:NAMED])}{more}"]


def _measured(statistics: Statistics, table: CalibrationTable) -> list[str]:
    return [name for name in statistics.tensors if name in table.amax]


def _beyond(tensor: TensorStatistics, limit: float) -> float:
    """Share of the values whose magnitude lies beyond `limit`, to the bin."""
    beyond = tensor.histogram.counts[int(limit / tensor.histogram.bin_width) + 1 :].sum()
    return float(beyond) / max(tensor.count, 1)
