"""A calibration table, or the path of one, brought to the names of a model."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Union

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import load_table, table_warning
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.match_table import MatchedTable, match_table

TableLike = Union[CalibrationTable, str, "os.PathLike[str]"]

_logger = logging.getLogger(__name__)


def matched_table(table: TableLike, model: Model, *, allow_other_model: bool = False) -> MatchedTable:
    """`table` with the ranges that follow from it in `model`.

    Raises:
        TableError: the file cannot be read; or the table was made for another model, unless that is allowed.
        UsageError: something else than a table.
    """
    if isinstance(table, CalibrationTable):
        ranges, name = table, "table"
    elif isinstance(table, (str, os.PathLike)):
        ranges, name = load_table(table), os.fspath(table)
        if warning := table_warning(Path(table)):
            _logger.warning("%s", warning)
    else:
        raise UsageError(f"`table` must be a CalibrationTable or a path, not {type(table).__name__}")
    if not allow_other_model:
        ranges.check_model(model.identity, name)
    return match_table(model.to_ir().graph, ranges, name)
