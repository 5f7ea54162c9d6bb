"""The rows of the comparison: each model in FP32, then as each maker quantizes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

from benchmarks.accuracy.accuracy_row import FP32, measure, measure_float
from benchmarks.accuracy.cases import CASES
from benchmarks.accuracy.makers import MAKERS
from benchmarks.results_file import Figures, RowSpec


def accuracy_rows() -> list[RowSpec]:
    """All rows: what is read first is measured first."""
    floats = [RowSpec("accuracy", f"{name}/{FP32}", partial(_float_row, name), is_ours=False) for name in CASES]
    return floats + [
        RowSpec("accuracy", f"{name}/{maker}", partial(_row, name, maker), maker.startswith("ours"))
        for maker in MAKERS
        for name in CASES
    ]


def _float_row(name: str, _rows: Mapping[str, Figures]) -> Figures:
    return asdict(measure_float(name))


def _row(name: str, maker: str, rows: Mapping[str, Figures]) -> Figures:
    return asdict(measure(name, maker, rows))
