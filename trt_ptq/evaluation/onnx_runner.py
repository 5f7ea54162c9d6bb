"""Running ONNX models for judgement, through Polygraphy and ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.logger import G_LOGGER

from trt_ptq._internal.signals import deferred_interrupts
from trt_ptq.errors import DataError, ModelError
from trt_ptq.fp16.emulate import emulate_float16
from trt_ptq.onnx_io.save import save_model
from trt_ptq.types import Array, Feeds

Run = Callable[[Feeds], dict[str, Array]]


@contextmanager
def _silence() -> Iterator[None]:
    """Polygraphy logs errors to stdout or, since 0.50, to stderr, and raises them too: once is enough."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # With it ONNX Runtime holds all weights that it dequantizes at once: four times the size of an INT8 model.
    options.enable_mem_pattern = False
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def temporary_model_file(model: ir.Model, name: str) -> Iterator[Path]:
    """`model` as a file called `name`, which is there for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="trt-ptq-") as folder:
        path = Path(folder) / name
        save_model(model, path)
        yield path


@contextmanager
def onnx_runner(path: Path) -> Iterator[OnnxrtRunner]:
    """An active Polygraphy runner for the ONNX file `path`; float16 tensors are rounded as `emulate_float16` tells.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    G_LOGGER.module_severity = G_LOGGER.ERROR
    with tempfile.TemporaryDirectory(prefix="trt-ptq-") as folder:
        try:
            model = ir.load(path)
            rounded = Path(folder) / path.name
            if emulate_float16(model):
                save_model(model, rounded)
            runner = OnnxrtRunner(partial(_session, rounded if rounded.exists() else path), name=path.name)
            with _silence():
                runner.activate()
        except Exception as error:  # onnx_ir, ONNX Runtime and Polygraphy have no common base for their errors
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {reason}") from error
        try:
            yield runner
        finally:
            runner.deactivate()


def infer(runner: OnnxrtRunner, feeds: Feeds, origin: str) -> dict[str, Array]:
    """Outputs by name for one batch.

    Raises:
        DataError: the model fails on the batch; names it.
    """
    try:
        with _silence(), deferred_interrupts():  # Polygraphy may import torch here, and would lose a Ctrl-C in that
            outputs = runner.infer({name: np.ascontiguousarray(array) for name, array in feeds.items()})
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{origin}: {runner.name} fails on this batch: {reason}") from error
    return {name: np.asarray(array) for name, array in outputs.items()}
