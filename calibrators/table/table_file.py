"""Reading and writing tables. The file name selects the format:

`x.json`         trt_ptq's JSON, with provenance; also reads the JSON of ONNX Runtime, recognized by its content
`x.ort.json`     ONNX Runtime's JSON
`x.flatbuffers`  the table that ONNX Runtime's TensorRT execution provider reads
anything else    TensorRT's calibration cache
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibrators.table import ort_table
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, TableProvenance
from trt_ptq.calibrators.table.table_recipe import parse_table_recipe
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache, TensorRTVersion, parse_header
from trt_ptq.errors import TableError
from trt_ptq.provenance import DataFingerprint, ModelIdentity

_FORMAT = "trt_ptq calibration table 1"
TableFormat = Literal["TensorRT cache", "JSON table", "ONNX Runtime JSON", "ONNX Runtime flatbuffers"]


def table_format(path: Path) -> TableFormat:
    """The format of a table, by its file name."""
    name = path.name.lower()
    if name.endswith(".flatbuffers"):
        return "ONNX Runtime flatbuffers"
    if name.endswith(".ort.json"):
        return "ONNX Runtime JSON"
    return "JSON table" if name.endswith(".json") else "TensorRT cache"


def save_table(
    table: CalibrationTable, path: str | os.PathLike[str], tensorrt_version: TensorRTVersion | None = None
) -> None:
    """Write `table` to `path`, atomically.

    Args:
        table: The table to write.
        path: Its name selects the format.
        tensorrt_version: The TensorRT version that a cache is written for; see `TensorRTCache.from_table`.

    Raises:
        OutputError: `path` cannot be written.
        TableError: A tensor name that a TensorRT cache cannot hold.
    """
    path = Path(path)
    file_format = table_format(path)
    if file_format == "JSON table":
        content = {
            "format": _FORMAT,
            "provenance": table.provenance and asdict(table.provenance),
            **({"tensorrt_header": table.tensorrt_header} if table.tensorrt_header else {}),
            **({"recipe": asdict(table.recipe)} if table.recipe else {}),
            "tensors_without_range": list(table.tensors_without_range),
            "amax": dict(table.amax),
        }
        write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    elif file_format == "ONNX Runtime JSON":
        write_atomic(path, ort_table.to_json(table))
    elif file_format == "ONNX Runtime flatbuffers":
        write_atomic(path, ort_table.to_flatbuffers(table))
    else:
        write_atomic(path, TensorRTCache.from_table(table, tensorrt_version).to_bytes())


def load_table(path: str | os.PathLike[str]) -> CalibrationTable:
    """Read a calibration table in any format.

    Args:
        path: A TensorRT cache, a JSON table of trt_ptq, or a flatbuffers or JSON table of ONNX Runtime.

    Returns:
        The table. It has provenance only if the file records it.

    Raises:
        TableError: The file does not exist or is damaged; with the line number for a cache.
    """
    path = Path(path)
    file_format = table_format(path)
    if path.suffix == ".safetensors":
        raise TableError(
            f"{path}: statistics, not a table: make one by `trt-ptq table {path} --out calibration.json`, and give it"
        )
    try:
        if file_format == "TensorRT cache":
            return TensorRTCache.parse(path.read_bytes(), str(path)).to_table()
        if file_format == "ONNX Runtime flatbuffers":
            return ort_table.from_flatbuffers(path.read_bytes())
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TableError(f"cannot read calibration table {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TableError(f"{path}: not a calibration table of this version: {error!r}") from error
    except TableError as error:
        raise TableError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def table_warning(path: Path) -> str | None:
    """A warning about ranges in the file that may be wrong, or None."""
    if table_format(path) == "ONNX Runtime flatbuffers" and ort_table.may_lack_negative_end(path.read_bytes()):
        return (
            f"{path}: ONNX Runtime's write_calibration_table drops the negative end of a range where the positive end "
            "is smaller in magnitude, so such tensors are clipped; use the calibration.json beside it, which has both "
            "ends"
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
        name.encode()  # a lone surrogate could not be written again
    source = content["provenance"]
    provenance = source and TableProvenance(
        model=ModelIdentity(**source["model"]),
        data=DataFingerprint(**source["data"]),
        method=source["method"],
        tools=tuple(source["tools"]),
    )
    header = content.get("tensorrt_header")
    if header is not None:
        parse_header(header)
    return CalibrationTable(
        {name: float(value) for name, value in amax.items()},
        provenance,
        tuple(content["tensors_without_range"]),
        header,
        parse_table_recipe(content["recipe"]) if content.get("recipe") else None,
    )
