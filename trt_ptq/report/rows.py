"""Rows of the report, from statistics, ranges and evaluated models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines.spec import Precision
from trt_ptq.evaluation.precisions import PrecisionComparison
from trt_ptq.onnx_io.load import model_size_bytes
from trt_ptq.output import ENGINES
from trt_ptq.report.schema import BARS, ModelResult, TensorRow


def tensor_rows(
    statistics: Statistics, table: CalibrationTable, used: Collection[str] | None = None
) -> list[TensorRow]:
    """One row per tensor that has both statistics and a range, in the order of the statistics.

    Args:
        statistics: the statistics that the ranges come from.
        table: the ranges.
        used: the tensors whose ranges the INT8 model uses; None if there is no model yet.
    """
    rows = []
    for name in calibrated_tensors(statistics, table):
        tensor, amax = statistics.tensors[name], table.amax[name]
        histogram = tensor.histogram
        scale, zero_point = tensor.asymmetric_qparams()
        rows.append(
            TensorRow(
                name=name,
                minimum=tensor.minimum,
                maximum=tensor.maximum,
                amax=amax,
                scale=float(table.scale(name)),
                clipped=fraction_beyond(tensor, amax),
                nonfinite=tensor.nonfinite,
                asymmetric_scale=scale,
                asymmetric_zero_point=zero_point,
                bars=np.add.reduceat(histogram.counts, range(0, histogram.counts.size, 4096 // BARS)).tolist(),
                bars_end=2.0**histogram.exponent,
                used=None if used is None else name in used,
            )
        )
    return rows


def model_rows(files: Mapping[Precision, Path], comparison: PrecisionComparison) -> list[ModelResult]:
    """One row per ONNX file: FP32, FP16, INT8."""
    return [
        ModelResult(
            precision=precision,
            file=files[precision].name,
            size_bytes=model_size_bytes(files[precision]),
            fidelity=comparison.fidelity[precision].outputs if precision in comparison.fidelity else {},
            metrics=comparison.metrics.get(precision, {}),
        )
        for precision in sorted(files, key=("fp32", "fp16", "int8").index)
    ]


def engine_rows(folder: Path, comparison: PrecisionComparison) -> list[ModelResult]:
    """One row per engine in `folder` that was compared with FP32: FP16, INT8."""
    return [
        ModelResult(
            precision=precision,
            file=ENGINES[precision],
            size_bytes=(folder / ENGINES[precision]).stat().st_size,
            fidelity=comparison.fidelity[precision].outputs,
            metrics=comparison.metrics.get(precision, {}),
        )
        for precision in sorted(comparison.fidelity, key=("fp16", "int8").index)
    ]


def calibrated_tensors(statistics: Statistics, table: CalibrationTable) -> list[str]:
    """Names of the tensors that have both statistics and a range, in the order of the statistics."""
    return [name for name in statistics.tensors if name in table.amax]


def fraction_beyond(tensor: TensorStatistics, limit: float) -> float:
    """Fraction of the values whose magnitude exceeds `limit`, accurate to a histogram bin."""
    beyond = tensor.histogram.counts[int(limit / tensor.histogram.bin_width) + 1 :].sum()
    return float(beyond) / max(tensor.count, 1)
