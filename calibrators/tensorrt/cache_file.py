"""A calibration cache on disk, and the `.json` beside it that records its origin."""

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
    """The origin of one cache file.

    `ranges` names the range method; `model` is None if the calibrator did not get one; `repeated_samples` filled up
    the last batch; `sha256` is the hash of the cache file.
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
    """Write the cache and its record, each atomically; the hash reveals a record whose cache was not written.

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
        TableError: the file is damaged (names the line), or belongs to another model, TensorRT version, algorithm or
            range method. TensorRT would silently ignore some of those files, and use others.
    """
    if not path.exists():
        return None
    cache = TensorRTCache.read(path)
    _check_header(path, cache, version, algorithm)
    record = _read_record(path)
    if record is None:
        if ranges not in _TENSORRT_RANGES:
            raise TableError(f"{path}: no {record_path(path).name} confirms that it holds {ranges} ranges; {_REMEDY}")
        if model is not None:
            notify(f"{path}: used without a check that it belongs to this model: there is no {record_path(path).name}")
        return cache
    if model is not None and record.model is None:
        notify(f"{path}: used without a check that it belongs to this model: {record_path(path).name} names none")
    if record.sha256 != sha256(path.read_bytes()):
        raise TableError(f"{path}: differs from the cache in {record_path(path).name}; {_REMEDY}")
    if record.ranges != ranges:
        raise TableError(f"{path}: holds {record.ranges} ranges, not {ranges}; {_REMEDY}")
    difference = model and record.model and record.model.difference(model)
    if difference:
        raise TableError(f"{path}: belongs to another model: {difference}; {_REMEDY}")
    return cache


_TENSORRT_RANGES = ("entropy", "minmax")
_REMEDY = "delete both files to calibrate again, or choose another cache file"


def _check_header(path: Path, cache: TensorRTCache, version: TensorRTVersion, algorithm: str) -> None:
    if cache.version.major == version.major and cache.algorithm == algorithm:
        return
    raise TableError(
        f"{path}: TensorRT {version} with {algorithm} would ignore {cache.header}: convert the file "
        "(trt-ptq cache retarget), choose another file, or delete it to calibrate again"
    )


def _read_record(path: Path) -> CacheRecord | None:
    record_file = record_path(path)
    try:
        return CacheRecord.model_validate_json(record_file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TableError(f"cannot read {record_file}: {error.strerror}") from error
    except ValidationError as error:
        raise TableError(f"{record_file}: not the record of a calibration cache; {_REMEDY}") from error
