"""Observes convolutions in the blocked layout that ONNX Runtime computes them in.

On a CPU, ONNX Runtime stores the channels of a convolution in blocks of 8 or 16 (NCHWc). To output a tensor, it would
reorder it to NCHW, which costs more than counting. Statistics do not depend on the order of values, so the blocked
tensor is output instead, unless its channels do not fill the blocks: then it is padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.ort_session import CPU, create_session, session_options

_LARGEST_BLOCK = 16  # channels
_MAX_WEIGHTS = 250_000_000  # values: they are written to a temporary file, which should stay below 1 GB
_MODEL, _WEIGHTS = "optimized.onnx", "weights.bin"


def create_observed_session(
    proto: onnx.ModelProto, folder: Path, name: str, providers: Sequence[Any], threads: int | None = None
) -> tuple[ort.InferenceSession, dict[str, str]]:
    """Create a session for `proto`; see `create_session`.

    Returns:
        The session, and for each output of `proto` the name of the session's output with its values, in any order.

    Raises:
        ModelError: ONNX Runtime rejects the model.
    """
    unchanged = {value.name: value.name for value in proto.graph.output}
    options = session_options(threads)
    on_cpu = list(providers) == [CPU]
    has_convolutions = any(node.op_type == "Conv" for node in proto.graph.node)
    if not on_cpu or not has_convolutions or _count_weights(proto) > _MAX_WEIGHTS:
        return create_session(proto, folder, name, options, providers), unchanged
    try:
        with temporary_folder() as temporary:
            return _nchwc_session(proto, folder, name, threads, temporary)
    except (ModelError, OSError):  # such as a full temporary folder; other problems are raised again below
        return create_session(proto, folder, name, options), unchanged


def _nchwc_session(
    proto: onnx.ModelProto, folder: Path, name: str, threads: int | None, temporary: Path
) -> tuple[ort.InferenceSession, dict[str, str]]:
    options = session_options(threads)
    options.optimized_model_filepath = str(temporary / _MODEL)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    session = create_session(proto, folder, name, options)
    optimized = onnx.load(options.optimized_model_filepath, load_external_data=False)
    unchanged = {value.name: value.name for value in proto.graph.output}
    blocked = _observe_before_reordering(optimized)
    if not blocked:
        return session, unchanged
    del session  # frees its memory before the next session needs as much
    final = session_options(threads)
    final.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimized already
    return create_session(optimized, temporary, name, final), unchanged | blocked


def _observe_before_reordering(proto: onnx.ModelProto) -> dict[str, str]:
    """Replace outputs that are reordered from an unpadded blocked tensor by that tensor; return new names by old."""
    graph = proto.graph
    reordered = {node.output[0]: node for node in graph.node if node.op_type == "ReorderOutput"}
    blocked = {}
    for value in graph.output:
        node = reordered.get(value.name)
        if (
            node is not None
            and _attribute(node, "channels") % _LARGEST_BLOCK == 0
            and not _attribute(node, "channels_last")
        ):
            blocked[value.name] = node.input[0]
    used = _read_by_nodes(graph)
    for name in blocked:
        if name not in used:
            graph.node.remove(reordered[name])
    outputs = {blocked.get(value.name, value.name): value for value in graph.output}
    copies = []
    for name, value in outputs.items():
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = name
        copies.append(copy)
    del graph.output[:]
    graph.output.extend(copies)
    return blocked


def _count_weights(proto: onnx.ModelProto) -> int:
    return sum(math.prod(tensor.dims) for tensor in proto.graph.initializer)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _read_by_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that nodes read, subgraphs included, which may return such a tensor unchanged."""
    read: set[str] = set()
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                read |= _read_by_nodes(body) | {value.name for value in body.output}
    return read
