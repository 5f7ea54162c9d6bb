"""Tables on disk: `.json` with provenance, anything else is TensorRT's cache text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trt_ptq.calibrators.errors import TableError
from trt_ptq.calibrators.files import write_atomic
from trt_ptq.calibrators.provenance import DataFingerprint, ModelIdentity
from trt_ptq.calibrators.table.table import CalibrationTable, TableProvenance
from trt_ptq.calibrators.table.tensorrt_cache import LAST_WITH_CALIBRATORS, TensorRTCache, TensorRTVersion

_FORMAT = "trt_ptq calibration table 1"


def is_json(path: Path) -> bool:
    """Whether `path` is to be in our JSON form, by its extension."""
    return path.suffix.lower() == ".json"


def save_table(table: CalibrationTable, path: Path, version: TensorRTVersion = LAST_WITH_CALIBRATORS) -> None:
    """Write `table` to `path` in one step; `version` is the TensorRT that a cache is for.

    Raises:
        OutputError: `path` cannot be written.
        TableError: a tensor name that the cache text cannot hold.
    """
    if is_json(path):
        content = {
            "format": _FORMAT,
            "provenance": table.provenance and asdict(table.provenance),
            "unscaled": list(table.unscaled),
            "amax": dict(table.amax),
        }
        write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    else:
        algorithm = "EntropyCalibration2"
        if table.provenance and table.provenance.method == "minmax":
            algorithm = "MinMaxCalibration"
        write_atomic(path, TensorRTCache.from_table(table, version, algorithm).to_bytes())


def load_table(path: Path) -> CalibrationTable:
    """Read a table in either form.

    Raises:
        TableError: no such file, or damage; with the line number for a cache.
    """
    try:
        if not is_json(path):
            return TensorRTCache.parse(path.read_bytes(), str(path)).to_table()
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TableError(f"cannot read calibration table {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TableError(f"{path}: not a calibration table of this version: {error!r}") from error
    except TableError as error:
        raise TableError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def _parse(content: Any) -> CalibrationTable:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f'"format" is not "{_FORMAT}"')
    amax = content["amax"]
    for name, value in amax.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"the range of {name!r} is not a number")
        name.encode()  # a lone surrogate cannot be written again
    source = content["provenance"]
    provenance = source and TableProvenance(
        model=ModelIdentity(**source["model"]),
        data=DataFingerprint(**source["data"]),
        method=source["method"],
        tools=tuple(source["tools"]),
    )
    return CalibrationTable(
        {name: float(value) for name, value in amax.items()}, provenance, tuple(content["unscaled"])
    )
