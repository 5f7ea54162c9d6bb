"""The sessions that compute observed tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import TensorProto

from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.calibration.observed.nchwc import observe_before_reordering
from trt_ptq.calibration.observed.segments import Segment, cut, whole
from trt_ptq.calibration.observed.shared_arena import use_shared_arena
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.ort_session import CPU, create_session, session_options

_MAX_WEIGHTS = 250_000_000  # values: they are written to a temporary file, which should stay below 1 GB
_MODEL, _WEIGHTS = "optimized.onnx", "weights.bin"


@dataclass(frozen=True)
class ObservedSessions:
    """The sessions of a model, one for each of its segments, in the order to run them.

    Attributes:
        segments: The segments; there is one session for each.
        sessions: Their sessions.
        output_of: For each output of the model the output of a session with its values, in any order.
    """

    segments: tuple[Segment, ...]
    sessions: tuple[ort.InferenceSession, ...]
    output_of: dict[str, str]


def create_observed_sessions(
    proto: onnx.ModelProto, folder: Path, name: str, providers: Sequence[Any], threads: int | None = None
) -> ObservedSessions:
    """Create the sessions for `proto`; see `create_session`.

    There is one, unless the model runs on the CPU and takes tensors of numbers, and its weights are not too large.

    Raises:
        ModelError: ONNX Runtime rejects the model.
    """
    if runs_in_segments(proto, providers):
        try:
            with temporary_folder() as temporary:
                return _cut_sessions(proto, folder, name, threads, temporary)
        except (ModelError, OSError):  # such as a full temporary folder; other problems are raised again below
            pass
    session = create_session(proto, folder, name, session_options(threads), providers)
    return ObservedSessions((whole(proto),), (session,), {value.name: value.name for value in proto.graph.output})


def runs_in_segments(proto: onnx.ModelProto, providers: Sequence[Any]) -> bool:
    """Whether a model runs in segments on these providers, unless its weights cannot be written."""
    return list(providers) == [CPU] and has_numbers_only(proto) and _count_weights(proto) <= _MAX_WEIGHTS


def _cut_sessions(
    proto: onnx.ModelProto, folder: Path, name: str, threads: int | None, temporary: Path
) -> ObservedSessions:
    optimized = _optimize(proto, folder, name, threads, temporary)
    blocked = observe_before_reordering(optimized)
    segments = tuple(cut(optimized, threads or usable_cores()))
    sessions = tuple(create_session(segment.proto, temporary, name, _segment_options(threads)) for segment in segments)
    return ObservedSessions(
        segments, sessions, {value.name: blocked.get(value.name, value.name) for value in proto.graph.output}
    )


def _segment_options(threads: int | None) -> ort.SessionOptions:
    options = session_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the graph is optimized already
    use_shared_arena(options)
    return options


def _optimize(proto: onnx.ModelProto, folder: Path, name: str, threads: int | None, temporary: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime runs for `proto`; its weights are in a file in `temporary`."""
    options = session_options(threads)
    options.optimized_model_filepath = str(temporary / _MODEL)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.disable_prepacking", "1")  # the session never runs
    create_session(proto, folder, name, options)
    return onnx.load(options.optimized_model_filepath, load_external_data=False)


def has_numbers_only(proto: onnx.ModelProto) -> bool:
    """Whether all inputs and outputs are tensors of numbers, which ONNX Runtime can bind to memory."""
    kinds = {value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)}
    return not kinds & {TensorProto.UNDEFINED, TensorProto.STRING}


def _count_weights(proto: onnx.ModelProto) -> int:
    return sum(math.prod(tensor.dims) for tensor in proto.graph.initializer)
