"""A calibration cache on disk, and the `.json` beside it that says what it is a cache of."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache, TensorRTVersion
from trt_ptq.calibrators.tensorrt.calibration_warning import notify
from trt_ptq.errors import TableError
from trt_ptq.provenance import DataFingerprint, ModelIdentity


class CacheRecord(BaseModel):
    """Facts about one cache file. `ranges` says how its scales came about; `sha256` is of the file.

    `model` is None where the calibrator was not told. `repeated_samples` filled up the last batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: str
    ranges: str
    tensorrt: str
    trt_ptq: str
    model: ModelIdentity | None
    data: DataFingerprint
    batches: int
    repeated_samples: int
    sha256: str


def record_path(cache: Path) -> Path:
    """model.cache -> model.cache.json"""
    return cache.with_name(cache.name + ".json")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_cache(path: Path, content: bytes, record: CacheRecord) -> None:
    """Write the cache and its record, each in one step; a record that is left without its cache is noticed by its hash.

    Raises:
        OutputError: one of them cannot be written.
    """
    write_atomic(record_path(path), record.model_dump_json(indent=2) + "\n")
    write_atomic(path, content)


def read_cache(
    path: Path, version: TensorRTVersion, algorithm: str, ranges: str, model: ModelIdentity | None
) -> TensorRTCache | None:
    """The cache at `path`, or None when there is none.

    Raises:
        TableError: the file is damaged (with the line), or of another model, TensorRT, algorithm or kind of ranges
            than these. TensorRT would ignore some of those silently, and use others.
    """
    if not path.exists():
        return None
    cache = TensorRTCache.read(path)
    _check_header(path, cache, version, algorithm)
    record = _read_record(path)
    if record is None:
        if ranges not in _TENSORRT_RANGES:
            raise TableError(f"{path}: has no {record_path(path).name} that says it holds {ranges} ranges; {_REMEDY}")
        if model is not None:
            notify(f"{path}: has no {record_path(path).name}, so nothing says that it is of this model: used unchecked")
        return cache
    if model is not None and record.model is None:
        notify(f"{path}: {record_path(path).name} names no model, so it may be of another one: used unchecked")
    if record.sha256 != sha256(path.read_bytes()):
        raise TableError(f"{path}: is not the file that {record_path(path).name} describes; {_REMEDY}")
    if record.ranges != ranges:
        raise TableError(f"{path}: holds {record.ranges} ranges, not {ranges}; {_REMEDY}")
    difference = model and record.model and record.model.difference(model)
    if difference:
        raise TableError(f"{path}: made for another model: {difference}; {_REMEDY}")
    return cache


_TENSORRT_RANGES = ("entropy", "minmax")
_REMEDY = "delete both to calibrate again, or name another cache"


def _check_header(path: Path, cache: TensorRTCache, version: TensorRTVersion, algorithm: str) -> None:
    if cache.version.major == version.major and cache.algorithm == algorithm:
        return
    raise TableError(
        f"{path}: is {cache.header}, which TensorRT {version} with {algorithm} would ignore: convert it "
        f"(trt-ptq cache retarget), name another cache, or delete it to calibrate again"
    )


def _read_record(path: Path) -> CacheRecord | None:
    beside = record_path(path)
    try:
        return CacheRecord.model_validate_json(beside.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TableError(f"cannot read {beside}: {error.strerror}") from error
    except ValidationError as error:
        raise TableError(f"{beside}: not the record of a calibration cache; {_REMEDY}") from error
