"""A calibration table, or the path of one, brought to the names of a model."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Union

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import load_table, table_warning
from trt_ptq.errors import TableError, UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.match_table import MatchedTable, match_table

TableLike = Union[CalibrationTable, str, "os.PathLike[str]"]

_logger = logging.getLogger(__name__)


def matched_table(table: TableLike, model: Model, *, allow_other_model: bool = False) -> MatchedTable:
    """`table` with the ranges that follow from it in `model`; its recipe goes where the table was made for another one.

    Raises:
        TableError: the file cannot be read; or the table was made for another model, unless that is allowed.
        UsageError: something else than a table.
    """
    if isinstance(table, CalibrationTable):
        ranges, name = table, "table"
    elif isinstance(table, (str, os.PathLike)):
        ranges, name = load_table(table), os.fspath(table)
        for warning in (table_warning(Path(table)), _lost_recipe(Path(table), ranges)):
            if warning:
                _logger.warning("%s", warning)
    else:
        raise UsageError(f"`table` must be a CalibrationTable or a path, not {type(table).__name__}")
    if not allow_other_model:
        ranges.check_model(model.identity, name)
    if ranges.recipe and ranges.provenance and ranges.provenance.model != model.identity:
        _logger.warning("%s: only the ranges are used: the excluded nodes are those of another model", name)
        ranges = replace(ranges, recipe=None)
    return match_table(model.to_ir().graph, ranges, name)


def _lost_recipe(path: Path, table: CalibrationTable) -> str | None:
    """A warning where the table beside `path` records what `quantize` verified, and `path` does not."""
    beside = path.with_suffix(".json")
    if table.recipe or beside == path or not beside.is_file():
        return None
    try:
        complete = load_table(beside)
    except TableError:
        return None
    if complete.recipe is None or complete.amax.keys() != table.amax.keys():
        return None
    return (
        f"{path} has the ranges only, not which nodes `trt-ptq quantize` excluded from INT8 and what runs in FP16: "
        f"give {beside} to get the model that was verified"
    )
