"""All ONNX Runtime sessions, with settings that they share."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.errors import DataError, ModelError
from trt_ptq.types import Array, Batch, contiguous
from trt_ptq.version import __version__

CPU = "CPUExecutionProvider"
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 2**24  # see mallopt(3)
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 2**26
_limits_memory: ContextVar[bool] = ContextVar("limits_memory", default=False)
_LOG_FATAL_ONLY = 4  # errors that ONNX Runtime logs are raised as exceptions too


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Session options for `threads` threads (default: one per usable core).

    Graph optimization stays enabled. Idle threads sleep instead of spinning, since the counting kernels need the
    cores. Tensors come from ONNX Runtime's memory arena, except in `limited_memory`: without it, the system zeroes new
    pages for every tensor, which took two thirds of the time of a text recogniser on lines of 640 pixels. A memory
    pattern for each shape would take more memory, and no less time. Q/DQ is computed in floating point: ONNX Runtime's
    INT8 kernels round otherwise than TensorRT, and saturate on processors without VNNI.
    """
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = not _limits_memory.get()
    options.enable_mem_pattern = False
    _return_large_blocks()
    options.log_severity_level = _LOG_FATAL_ONLY
    options.intra_op_num_threads = threads or _threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


@contextmanager
def limited_memory(limit_bytes: int | None) -> Iterator[None]:
    """If there is a limit, sessions that are created inside return the memory of each tensor once it was read.

    An arena keeps more than the tensors need, by an amount that cannot be planned for.
    """
    token = _limits_memory.set(limit_bytes is not None)
    try:
        yield
    finally:
        _limits_memory.reset(token)


@cache
def _return_large_blocks() -> None:
    """Make glibc allocate large blocks with mmap, for the whole process, so that freeing returns them to the system.

    By default glibc moves such blocks to its heaps, which fragment: peak memory of ResNet-50 at batch size 8 grew by
    up to 9 % with the number of batches. Smaller blocks stay with the process: once the first threshold is set, glibc
    would return any 128 KB at the end of the heap, and the system zero them again for the next array.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _threads() -> int:
    """One thread per usable core, or 0 (ONNX Runtime then skips hyper-threads) if all cores are usable."""
    usable = usable_cores()
    return 0 if usable == os.cpu_count() else usable


def create_session(
    proto: onnx.ModelProto,
    folder: Path,
    name: str,
    options: ort.SessionOptions | None = None,
    providers: Sequence[Any] = (CPU,),
) -> ort.InferenceSession:
    """Create a session.

    Args:
        proto: The model.
        folder: The folder of its external data.
        name: The name of the model in messages.
        options: Session options; default: `session_options()`.
        providers: Execution providers; the first one is required to start.

    Raises:
        ModelError: ONNX Runtime refuses the model, or the first of `providers` does not start.
    """
    options = options or session_options()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    session = _start(proto.SerializeToString(), name, options, providers)
    required = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != required:  # ONNX Runtime falls back to the next provider, with a message at most
        raise ModelError(
            f"{name}: ONNX Runtime cannot start {required}: check that the CUDA and cuDNN versions that it needs are "
            "installed"
        )
    return session


def load_session(path: Path, name: str, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """A session on the CPU for the ONNX file `path`, whose external weights lie beside it; `name` is for messages.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    return _start(str(path), name, options or session_options(), (CPU,))


def load_mapped_session(path: Path, name: str) -> ort.InferenceSession:
    """The same for a few runs: external weights stay in their mapped file instead of being packed in memory.

    The system takes their pages back when it needs them. It starts at once; short batches take longer.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = session_options()
    options.add_session_config_entry("session.disable_prepacking", "1")
    return load_session(path, name, options)


def _start(
    model: str | bytes, name: str, options: ort.SessionOptions, providers: Sequence[Any]
) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime has no common base for its errors
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{name}: ONNX Runtime cannot load it: {reason}") from error


def model_fails(batch: Batch, error: Exception) -> DataError:
    """The error to raise for a batch that a session fails on."""
    reason = str(error).strip().splitlines()[0]
    return DataError(f"{batch.origin}: the model fails on this batch: {reason}")


def run_session(session: ort.InferenceSession, batch: Batch) -> list[Array]:
    """Run one batch and return all outputs.

    Raises:
        DataError: The model fails on the batch; names the batch.
    """
    try:
        return session.run(None, contiguous(batch.feeds))  # type: ignore[no-any-return]
    except Exception as error:
        raise model_fails(batch, error) from error


def run_part(session: ort.InferenceSession, batch: Batch) -> list[Array]:
    """`run_session` of a part of the model, which takes only some of its inputs."""
    inputs = {argument.name for argument in session.get_inputs()}
    feeds = {name: array for name, array in batch.feeds.items() if name in inputs}
    return run_session(session, Batch(feeds, batch.origin))


def tools() -> tuple[str, ...]:
    """Names and versions of the tools that collect statistics; equal tools give identical statistics."""
    return f"onnxruntime {ort.__version__}", f"trt_ptq {__version__}"
