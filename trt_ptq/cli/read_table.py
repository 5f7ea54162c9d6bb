"""Reading a table for a command: what is doubtful about the file is said at once."""

from __future__ import annotations

from pathlib import Path

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import load_table, table_warning
from trt_ptq.cli import console


def read_table(path: Path) -> CalibrationTable:
    """`load_table`, with a warning on standard error about ranges that may not be what they say.

    Raises:
        TableError: see `load_table`.
    """
    table = load_table(path)
    doubt = table_warning(path)
    if doubt:
        console.warn(doubt)
    return table
