"""Writing ONNX models in one step, with their weights in a file beside them when they are too large for one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

from trt_ptq.calibrators.errors import OutputError
from trt_ptq.calibrators.files import write_atomic

_SINGLE_FILE_LIMIT = 1_900_000_000  # bytes; protobuf ends at 2 GiB


def weights_size_bytes(model: ir.Model) -> int:
    """Size of all weights of the main graph."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)


def save_model(model: ir.Model, path: Path) -> None:
    """Write `model` to `path`, and weights over 1.9 GB to `path` + ".data".

    Raises:
        OutputError: `path` cannot be written; an old model is untouched then.
    """
    if weights_size_bytes(model) < _SINGLE_FILE_LIMIT:
        model = ir.external_data.load_to_model(model)
        write_atomic(path, ir.to_proto(model).SerializeToString(deterministic=True))
        return
    data = path.name + ".data"
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            ir.save(model, Path(folder) / path.name, external_data=data)
            os.replace(Path(folder) / data, path.with_name(data))
            os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
