"""Tables on disk, in the form that the file's name asks for.

`x.json`         our JSON, with provenance; in reading also ONNX Runtime's JSON, told apart by its content
`x.ort.json`     ONNX Runtime's JSON
`x.flatbuffers`  the table that ONNX Runtime's TensorRT execution provider reads
anything else    TensorRT's cache text
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibrators.table import ort_table
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, TableProvenance
from trt_ptq.calibrators.table.tensorrt_cache import LAST_WITH_CALIBRATORS, TensorRTCache, TensorRTVersion
from trt_ptq.errors import TableError
from trt_ptq.provenance import DataFingerprint, ModelIdentity

_FORMAT = "trt_ptq calibration table 1"
TableFormat = Literal["TensorRT cache", "JSON table", "ONNX Runtime JSON", "ONNX Runtime flatbuffers"]


def table_format(path: Path) -> TableFormat:
    """The form of a table by its file name."""
    name = path.name.lower()
    if name.endswith(".flatbuffers"):
        return "ONNX Runtime flatbuffers"
    if name.endswith(".ort.json"):
        return "ONNX Runtime JSON"
    return "JSON table" if name.endswith(".json") else "TensorRT cache"


def save_table(table: CalibrationTable, path: Path, version: TensorRTVersion = LAST_WITH_CALIBRATORS) -> None:
    """Write `table` to `path` in one step; `version` is the TensorRT that a cache is for.

    Raises:
        OutputError: `path` cannot be written.
        TableError: a tensor name that the cache text cannot hold.
    """
    form = table_format(path)
    if form == "JSON table":
        content = {
            "format": _FORMAT,
            "provenance": table.provenance and asdict(table.provenance),
            "tensors_without_range": list(table.tensors_without_range),
            "amax": dict(table.amax),
        }
        write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    elif form == "ONNX Runtime JSON":
        write_atomic(path, ort_table.to_json(table))
    elif form == "ONNX Runtime flatbuffers":
        write_atomic(path, ort_table.to_flatbuffers(table))
    else:
        algorithm = "EntropyCalibration2"
        if table.provenance and table.provenance.method == "minmax":
            algorithm = "MinMaxCalibration"
        write_atomic(path, TensorRTCache.from_table(table, version, algorithm).to_bytes())


def load_table(path: Path) -> CalibrationTable:
    """Read a table in any form.

    Raises:
        TableError: no such file, or damage; with the line number for a cache.
    """
    form = table_format(path)
    try:
        if form == "TensorRT cache":
            return TensorRTCache.parse(path.read_bytes(), str(path)).to_table()
        if form == "ONNX Runtime flatbuffers":
            return ort_table.from_flatbuffers(path.read_bytes())
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TableError(f"cannot read calibration table {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TableError(f"{path}: not a calibration table of this version: {error!r}") from error
    except TableError as error:
        raise TableError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def table_warning(path: Path) -> str | None:
    """What the file alone cannot tell about its ranges, in words; None when they are what they say."""
    if table_format(path) == "ONNX Runtime flatbuffers" and ort_table.may_lack_negative_end(path.read_bytes()):
        return (
            f"{path}: ONNX Runtime's write_calibration_table drops the negative end of a range where the positive one "
            "is smaller in size, which clips such tensors; the calibration.json beside it has both ends: prefer it"
        )
    return None


def _parse(content: Any) -> CalibrationTable:
    if ort_table.is_onnxruntime_json(content):
        return ort_table.from_json(content)
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
        {name: float(value) for name, value in amax.items()},
        provenance,
        tuple(content["tensors_without_range"]),
    )
