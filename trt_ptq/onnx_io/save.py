"""Writing ONNX models in one step, with their weights in a file beside them when they are too large for one."""

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

_SINGLE_FILE_LIMIT = 1_900_000_000  # bytes; protobuf ends at 2 GiB


def weights_size_bytes(model: ir.Model) -> int:
    """Size of all weights, those of bodies too."""
    values = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.nbytes for value in values if value is not None)


def save_model(model: ir.Model, path: Path) -> None:
    """Write `model` to `path`, and weights over 1.9 GB to `path` + ".data".

    Weights that come from a file, or are yet to be computed, are taken one at a time. A new weights file never takes
    the place of another (it is called ".1.data" then), so that `path` always goes with the file that it names; once
    `path` is replaced, the weights file of the model that was there is removed.

    Raises:
        OutputError: `path` cannot be written; an old model and its weights are untouched then.
    """
    old = _own_files(path)
    if weights_size_bytes(model) < _SINGLE_FILE_LIMIT:
        with atomic_replace(path) as temporary:
            write_one_file(model, temporary)
    else:
        _save_as_two(model, path, next(file for file in _data_files(path) if not os.path.lexists(file)))
    for file in old:
        file.unlink(missing_ok=True)


def check_saveable(path: Path, model: Model) -> None:
    """Find out before the work that `path` cannot be written, or would replace the `model` or its weights.

    Raises:
        OutputError: with the reason.
    """
    check_writable(path, model.path, *model.external.files)
    for shared in model.external.files & _own_files(path):
        raise OutputError(f"cannot write {path}: {model.path} uses its weights {shared.name}; name another file")


def _save_as_two(model: ir.Model, path: Path, data: Path) -> None:
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
    """Files beside the model `path` that have a name which `save_model` gives to its weights."""
    return {file.resolve() for file in path.parent.glob(f"{glob.escape(path.name)}.*") if _is_data(path, file)}


def _is_data(path: Path, file: Path) -> bool:
    return re.fullmatch(re.escape(path.name) + r"(\.[1-9]\d*)?\.data", file.name) is not None


def _own_files(path: Path) -> set[Path]:
    """Weights files that the model at `path`, if one is there, has from `save_model`."""
    beside = weights_beside(path)
    if not beside or not path.is_file():
        return set()
    try:
        return beside & external_files(path)
    except (DecodeError, ValueError):
        return set()  # no model: nothing of ours
