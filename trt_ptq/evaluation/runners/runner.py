"""One protocol for whatever runs a model: ONNX Runtime on the CPU, or an engine on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from trt_ptq.evaluation.runners.engine_runner import engine_inputs, engine_runner
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.onnx_io.load import read_inputs
from trt_ptq.types import Array, Feeds, TensorSpec

ENGINE_SUFFIXES = (".engine", ".plan")


class Runner(Protocol):
    """A loaded model; `name` is what messages call it."""

    @property
    def name(self) -> str: ...

    def infer(self, feeds: Feeds, origin: str) -> dict[str, Array]:
        """Compute the outputs for one batch, by name.

        Args:
            feeds: input arrays by name.
            origin: where the batch comes from, for messages.

        Raises:
            DataError: the model fails on the batch, or the batch does not fit it.
            EngineError: the engine fails, whatever the batch.
        """


def is_engine(path: Path) -> bool:
    """Whether the name of `path` is that of an engine."""
    return path.suffix in ENGINE_SUFFIXES


@contextmanager
def open_runner(path: Path) -> Iterator[Runner]:
    """Load the ONNX file or the engine at `path`.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
        EngineError, MissingPackageError: the engine cannot be loaded here; see `load_engine`.
    """
    with engine_runner(path) if is_engine(path) else onnx_runner(path) as runner:
        yield runner


def inputs_of(path: Path) -> tuple[TensorSpec, ...]:
    """Read the inputs of the ONNX file or the engine at `path`.

    Raises:
        ModelError, EngineError, MissingPackageError: it cannot be read.
    """
    return engine_inputs(path) if is_engine(path) else read_inputs(path)
