"""ONNX Runtime sessions, set up once for measuring and for checking."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from trt_ptq._internal.cpu import usable_cores
from trt_ptq.errors import DataError, ModelError
from trt_ptq.types import Array, Batch
from trt_ptq.version import __version__

CPU = "CPUExecutionProvider"
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 2**24  # see mallopt(3)
_QUIET = 4  # what ONNX Runtime logs as an error it raises too


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Options for `threads` threads, by default one for each core.

    Graph optimisation stays on; idle workers sleep instead of spinning on the core that counts; and memory goes back to
    the system, as the arena of ONNX Runtime takes twice what the tensors need and keeps it.
    """
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = False
    _give_large_blocks_back()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or _threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


@cache
def _give_large_blocks_back() -> None:
    """Have glibc map large blocks by themselves, for the whole process.

    As it is, it learns to take them from its heaps, where holes remain: ResNet-50's peak at batch 8 grew by up to 9 %
    with the number of batches. (Without them, calibration is 4 % slower.)
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _threads() -> int:
    """One for each usable core; 0, which lets ONNX Runtime leave out hyper-threads, where it may use all of them."""
    usable = usable_cores()
    return 0 if usable == os.cpu_count() else usable


def create_session(
    proto: onnx.ModelProto,
    folder: Path,
    name: str,
    options: ort.SessionOptions | None = None,
    providers: Sequence[Any] = (CPU,),
) -> ort.InferenceSession:
    """A session for `proto`, whose external weights lie in `folder`; `name` is for messages.

    Raises:
        ModelError: ONNX Runtime refuses the model, or the first of `providers` does not start.
    """
    options = options or session_options()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=list(providers))
    except Exception as error:  # ONNX Runtime has no common base for its errors
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{name}: ONNX Runtime cannot load it: {reason}") from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != wanted:  # ONNX Runtime goes on with the next one, at most with a message
        raise ModelError(
            f"{name}: {wanted} of ONNX Runtime does not start: does it find CUDA and cuDNN of its versions?"
        )
    return session


def model_fails(batch: Batch, error: Exception) -> DataError:
    """What to raise when a session fails on `batch`; ONNX Runtime has no common base for its errors."""
    reason = str(error).strip().splitlines()[0]
    return DataError(f"{batch.origin}: the model fails on this batch: {reason}")


def run_session(session: ort.InferenceSession, batch: Batch) -> list[Array]:
    """All outputs for one batch.

    Raises:
        DataError: the model fails on it; names the batch.
    """
    feeds = {name: np.ascontiguousarray(array) for name, array in batch.feeds.items()}
    try:
        return session.run(None, feeds)  # type: ignore[no-any-return]
    except Exception as error:
        raise model_fails(batch, error) from error


def tools() -> tuple[str, ...]:
    """What measures, for provenance; statistics are the same to the byte where it is the same."""
    return f"onnxruntime {ort.__version__}", f"trt_ptq {__version__}"
