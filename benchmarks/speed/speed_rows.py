"""The rows of speed and memory. Both sides of a comparison take turns; a ratio is the median of the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial

from benchmarks.results_file import Figures, RowSpec
from benchmarks.speed import collecting, memory, modelopt, onnxruntime_calibrators, ranges
from benchmarks.speed.speed_row import Row

Measure = Callable[[], Row | list[Row]]

MEASUREMENTS: dict[str, Measure] = {
    "resnet50-fused": collecting.resnet50_fused,
    "resnet50-operators": collecting.resnet50_operators,
    "bert": collecting.bert_fused,
    "mobilenet-v2": collecting.mobilenet_v2_fused,
    "smollm2": collecting.smollm2_text,
    "entropy-search": ranges.entropy_search,
    "large-statistics": ranges.large_statistics,
    "memory-batch-1": memory.single,
    "memory-batch-8": memory.batched,
    "onnxruntime-minmax": onnxruntime_calibrators.minmax,
    "onnxruntime-entropy": onnxruntime_calibrators.entropy,
    "onnxruntime-percentile": onnxruntime_calibrators.percentile,
    "modelopt-entropy": modelopt.entropy,
    "modelopt-max": modelopt.maximum,
    "whole-job": modelopt.whole_job,
    "memory-onnxruntime": memory.onnxruntime_peers,
    "memory-modelopt": memory.modelopt_peers,
}


def speed_rows() -> list[RowSpec]:
    """All rows."""
    return [RowSpec("speed", name, partial(_figures, measure)) for name, measure in MEASUREMENTS.items()]


def _figures(measure: Measure, _rows: Mapping[str, Figures]) -> Figures:
    measured = measure()
    return {"rows": [asdict(row) for row in (measured if isinstance(measured, list) else [measured])]}
