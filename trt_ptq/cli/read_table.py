"""Reads a calibration table for a command, and warns of doubtful files."""

from __future__ import annotations

from pathlib import Path

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import load_table, table_warning
from trt_ptq.cli import console


def read_table(path: Path) -> CalibrationTable:
    """Load a table, and warn if its ranges may be wrong.

    Raises:
        TableError: see `load_table`.
    """
    table = load_table(path)
    warning = table_warning(path)
    if warning:
        console.warn(warning)
    return table
