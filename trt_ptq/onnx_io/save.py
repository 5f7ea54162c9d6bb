"""Save ONNX models atomically, with external weights if the model is too large for one file."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import DecodeError

from trt_ptq._internal.files import atomic_replace, check_writable
from trt_ptq.errors import OutputError
from trt_ptq.onnx_io.external_data import external_files
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.writer import write_one_file, write_two_files

_SINGLE_FILE_LIMIT_BYTES = 1_900_000_000  # protobuf's limit is 2 GiB


def weights_size_bytes(model: ir.Model) -> int:
    """Size of all weights, including those of nested graphs."""
    values = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.nbytes for value in values if value is not None)


def save_model(model: ir.Model, path: Path) -> None:
    """Save a model atomically.

    Weights are written one at a time, so a model may be larger than memory. A new weights file never overwrites an
    existing one (its name is `path` + ".1.data" then), so `path` and the file it refers to always match. The weights
    file of a model that was at `path` before is removed at the end.

    Args:
        model: The model; its weights may be external or lazy tensors.
        path: The ONNX file to write. If the weights exceed 1.9 GB, they go to `path` + ".data".

    Raises:
        OutputError: `path` cannot be written; a model that was there before is unchanged.
    """
    old = _own_files(path)
    if weights_size_bytes(model) < _SINGLE_FILE_LIMIT_BYTES:
        with atomic_replace(path) as temporary:
            write_one_file(model, temporary)
    else:
        _save_with_external_data(model, path, next(file for file in _data_files(path) if not os.path.lexists(file)))
    for file in old:
        file.unlink(missing_ok=True)


def save_mapped(model: ir.Model, path: Path) -> None:
    """Save a model for this run alone, with its weights in `path` + ".data".

    What loads it maps them into memory, where those of a single file are copied by each.

    Args:
        model: The model; its weights may be external or lazy tensors.
        path: A file that does not exist.

    Raises:
        OutputError: `path` cannot be written.
    """
    _save_with_external_data(model, path, next(_data_files(path)))


def check_saveable(path: Path, model: Model) -> None:
    """Check, before any work, that `path` can be written without replacing `model` or its weights.

    Raises:
        OutputError: It cannot; gives the reason.
    """
    check_writable(path, model.path, *model.external.files)
    for shared in model.external.files & _own_files(path):
        raise OutputError(
            f"cannot write {path}: {model.path} uses its weights file {shared.name}; choose another output path"
        )


def _save_with_external_data(model: ir.Model, path: Path, data: Path) -> None:
    try:
        with atomic_replace(path) as temporary:
            write_two_files(model, temporary, data)
            with data.open("rb") as file:
                os.fsync(file.fileno())
    except BaseException:
        if data.resolve() not in _own_files(path):
            data.unlink(missing_ok=True)
        raise


def _data_files(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.data")
    for number in count(1):
        yield path.with_name(f"{path.name}.{number}.data")


def weights_beside(path: Path) -> set[Path]:
    """Files next to the model `path` with a name that `save_model` uses for its weights."""
    return {file.resolve() for file in path.parent.glob(f"{glob.escape(path.name)}.*") if _is_data(path, file)}


def _is_data(path: Path, file: Path) -> bool:
    return re.fullmatch(re.escape(path.name) + r"(\.[1-9]\d*)?\.data", file.name) is not None


def _own_files(path: Path) -> set[Path]:
    """Weights files that `save_model` wrote for the model at `path`, if there is one."""
    beside = weights_beside(path)
    if not beside or not path.is_file():
        return set()
    try:
        return beside & external_files(path)
    except (DecodeError, ValueError):
        return set()  # not a model
