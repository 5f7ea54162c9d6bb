"""The statistics file: safetensors with the numbers as stacked arrays and everything else as JSON in the header.

Equal statistics give equal bytes. A digest over the whole content detects damage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.kernels import BINS
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import StatisticsError
from trt_ptq.provenance import DataFingerprint, ModelIdentity, Shard
from trt_ptq.types import Array

_FORMAT = "trt_ptq statistics 1"
_SCALARS = {
    "count": np.int64,
    "zeros": np.int64,
    "nonfinite": np.int64,
    "minimum": np.float32,
    "maximum": np.float32,
}
_ARRAYS = {**_SCALARS, "exponent": np.int32, "histogram": np.int64}


def save_statistics(statistics: Statistics, path: Path, unfinished: Mapping[str, Any] | None = None) -> None:
    """Write `statistics` to `path`, atomically.

    Args:
        statistics: The statistics to write.
        path: The file.
        unfinished: For a checkpoint: the state of the unfinished calibration, as JSON.

    Raises:
        OutputError: `path` cannot be written.
    """
    names = sorted(statistics.tensors)
    rows = [statistics.tensors[name] for name in names]
    arrays: dict[str, Array] = {
        key: np.array([getattr(row, key) for row in rows], dtype) for key, dtype in _SCALARS.items()
    }
    arrays["exponent"] = np.array([row.histogram.exponent for row in rows], np.int32)
    arrays["histogram"] = np.array([row.histogram.counts for row in rows], np.int64).reshape(-1, BINS)
    header: dict[str, Any] = {
        "format": _FORMAT,
        "model": asdict(statistics.model),
        "data": asdict(statistics.data),
        "tools": list(statistics.tools),
        "tensors": names,
        "shares_range": dict(sorted(statistics.shares_range.items())),
    }
    if statistics.shards:
        header["shards"] = [asdict(shard) for shard in statistics.shards]
    if unfinished is not None:
        header["unfinished"] = dict(unfinished)
    text = json.dumps(header)
    arrays["digest"] = _digest(text, arrays)
    # A single metadata key: safetensors writes several keys in random order.
    write_atomic(path, save(arrays, {"trt_ptq": text}))


def load_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Read a statistics file.

    Args:
        path: A file written by `Statistics.save` or `trt-ptq calibrate`.

    Returns:
        The statistics.

    Raises:
        StatisticsError: The file does not exist, is damaged or of another format, or is a checkpoint of an unfinished
            calibration.
    """
    statistics, unfinished = _load(Path(path))
    if unfinished is not None:
        raise StatisticsError(
            f"{path}: a checkpoint of an interrupted calibration: repeat that `trt-ptq calibrate` command to finish it"
        )
    return statistics


def load_unfinished(path: Path) -> tuple[Statistics, dict[str, Any]]:
    """Read a checkpoint: the statistics of an unfinished calibration, and its state.

    Raises:
        StatisticsError: The file does not exist, is damaged or of another format, or holds complete statistics.
    """
    statistics, unfinished = _load(path)
    if unfinished is None:
        raise StatisticsError(f"{path}: not a checkpoint but complete statistics: choose another path")
    return statistics, unfinished


def _load(path: Path) -> tuple[Statistics, dict[str, Any] | None]:
    try:
        if not path.is_file():
            raise StatisticsError(f"{path}: no such statistics file; create it with `trt-ptq calibrate`")
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get("trt_ptq", "{}")
            header = json.loads(text)
            if not isinstance(header, dict) or header.get("format") != _FORMAT:
                raise StatisticsError(f'{path}: not a statistics file of this version ("{_FORMAT}")')
            arrays = {key: file.get_tensor(key) for key in _ARRAYS}
            if not np.array_equal(file.get_tensor("digest"), _digest(text, arrays)):
                raise ValueError("the content does not match its digest")
        return _parse(header, arrays), header.get("unfinished")
    except StatisticsError as error:
        raise StatisticsError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except Exception as error:  # safetensors, JSON and NumPy raise many types for damaged files
        reason = " ".join(str(error).split())
        raise StatisticsError(f"{path}: damaged or not a statistics file: {reason}") from error


def _digest(header: str, arrays: dict[str, Array]) -> Array:
    """BLAKE2b of the header and of the type, shape and content of each array: uint8 [16]."""
    hasher = hashlib.blake2b(header.encode(), digest_size=16)
    for key in _ARRAYS:
        array = arrays[key]
        hasher.update(f"{key}|{array.dtype.str}|{array.shape}|".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return np.frombuffer(hasher.digest(), np.uint8)


def _parse(header: dict[str, Any], arrays: dict[str, Array]) -> Statistics:
    names: list[str] = header["tensors"]
    shapes = {key: (len(names),) for key in _ARRAYS} | {"histogram": (len(names), BINS)}
    if any(arrays[key].shape != shapes[key] or arrays[key].dtype != dtype for key, dtype in _ARRAYS.items()):
        raise ValueError("the arrays do not match the list of tensors")
    columns = {key: arrays[key].tolist() for key in [*_SCALARS, "exponent"]}
    tensors = {}
    for row, name in enumerate(names):
        scalars = {key: columns[key][row] for key in _SCALARS}
        histogram = Histogram(columns["exponent"][row], arrays["histogram"][row])
        if histogram.counts.sum() != scalars["count"]:
            raise ValueError(f"the counts of tensor {name!r} do not add up")
        tensors[name] = TensorStatistics(**scalars, histogram=histogram)
    return Statistics(
        model=ModelIdentity(**header["model"]),
        data=DataFingerprint(**header["data"]),
        tools=tuple(header["tools"]),
        tensors=tensors,
        shares_range=header["shares_range"],
        shards=tuple(Shard(**shard) for shard in header.get("shards", [])),
    )
