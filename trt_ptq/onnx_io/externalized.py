"""Load a model, or part of one, into ONNX Runtime without several copies of its weights in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.writer import write_weights


@contextmanager
def externalized(model: Model, part: ir.Model) -> Iterator[tuple[onnx.ModelProto, Path]]:
    """Yield `part` as a proto with its large weights in external files, and the folder of these files.

    Weights that `model` stores in its own file are written to a temporary file, which a session maps into memory.
    The file is deleted at the end of the block; sessions created inside keep working. If it cannot be written (no
    space left), the weights stay in the proto.

    Args:
        model: The model that `part` was derived from.
        part: The graph to load.
    """
    if model.external.files:
        yield ir.to_proto(part), model.external.folder
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder())
            proto = write_weights(part, folder / "weights.bin")
        except OSError:
            folder, proto = model.external.folder, ir.to_proto(part)
        yield proto, folder
