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
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.output import TRANSFORMED
from trt_ptq.qdq.ranges.match_table import MatchedTable, match_table

TableLike = Union[CalibrationTable, str, "os.PathLike[str]"]

_logger = logging.getLogger(__name__)


def matched_table(table: TableLike, model: Model, *, allow_other_model: bool = False) -> MatchedTable:
    """`table` with the ranges that follow from it in `model`; its recipe goes where the table was made for another one.

    Raises:
        TableError: the file cannot be read; or the table was made for another model or the transformed one, unless that
            is allowed.
        UsageError: something else than a table.
    """
    if isinstance(table, CalibrationTable):
        ranges, name = table, "table"
    elif isinstance(table, (str, os.PathLike)):
        ranges, name = load_table(table), os.fspath(table)
        if not allow_other_model:
            check_not_transformed(Path(table), ranges, model)
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


def check_not_transformed(path: Path, table: CalibrationTable, model: Model) -> None:
    """Refuse `model` for a table of the transformed model that lies beside it.

    Args:
        path: the file that `table` was read from, such as calibration.cache of `quantize`. Where it has no provenance,
            that of the complete table beside it counts.
        table: its ranges.
        model: the float model that they are to be used for.

    Raises:
        TableError: techniques changed the float model before the ranges were computed, and `model` is another one.
    """
    complete, transformed = table if table.provenance else _complete_table(path, table), path.with_name(TRANSFORMED)
    if complete is None or complete.provenance is None or complete.provenance.model == model.identity:
        return
    if transformed.is_file() and load_model(transformed).identity == complete.provenance.model:
        remedy = "" if complete is table else f", and {path.with_suffix('.json')} to get the model that was verified"
        raise TableError(
            f"{path}: its ranges are those of {transformed}, which equalization, rotation, SmoothQuant or GPTQ has "
            f"changed: use that model instead of {model.path}{remedy}"
        )


def _lost_recipe(path: Path, table: CalibrationTable) -> str | None:
    """A warning where the table beside `path` records what `quantize` verified, and `path` does not."""
    if _complete_table(path, table) is None:
        return None
    return (
        f"{path} has the ranges only, not which nodes `trt-ptq quantize` excluded from INT8 and what runs in FP16: "
        f"give {path.with_suffix('.json')} to get the model that was verified"
    )


def _complete_table(path: Path, table: CalibrationTable) -> CalibrationTable | None:
    """The table beside `path` that has the recipe of the same ranges, if `path` has none."""
    beside = path.with_suffix(".json")
    if table.recipe or beside == path or not beside.is_file():
        return None
    try:
        complete = load_table(beside)
    except TableError:
        return None
    return complete if complete.recipe and complete.amax.keys() == table.amax.keys() else None
