"""A part of a model, as ONNX Runtime loads it without copying its weights several times."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.writer import write_weights


@contextmanager
def externalized(model: Model, part: ir.Model) -> Iterator[tuple[onnx.ModelProto, Path]]:
    """`part`, which comes from `model`, as a proto without its large weights, and the folder that these are in.

    Weights that are in the model's own file are written to a temporary one, which a session maps into memory: after
    the block it is gone for all but the session. Where there is no room for it, they stay in the proto.
    """
    if model.external.files:
        yield ir.to_proto(part), model.external.folder
        return
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trt-ptq-")))
            proto = write_weights(part, folder / "weights.bin")
        except OSError:
            folder, proto = model.external.folder, ir.to_proto(part)
        yield proto, folder
