"""Tapping convolutions in the layout that ONNX Runtime computes them in.

On a CPU, ONNX Runtime keeps the channels of a convolution in blocks of 8 or 16 (NCHWc). A tapped tensor would first be
reordered to NCHW, which costs more than counting it. Statistics do not depend on the order of values, so the blocked
tensor is as good; but where the channels do not fill their blocks it is padded, and the reordered one is taken.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.ort_session import CPU, create_session, session_options

_LARGEST_BLOCK = 16  # channels
_MOST_WEIGHTS = 250_000_000  # values: they are written to a temporary file, which should stay below a gigabyte
_MODEL, _WEIGHTS = "optimized.onnx", "weights.bin"


def create_observed_session(
    proto: onnx.ModelProto, folder: Path, name: str, providers: Sequence[Any], threads: int | None = None
) -> tuple[ort.InferenceSession, dict[str, str]]:
    """A session for `proto` (see `create_session`), and for each output of `proto` the output of the session that
    holds its values, in whatever order.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    same = {value.name: value.name for value in proto.graph.output}
    options = session_options(threads)
    on_cpu = list(providers) == [CPU]
    convolves = any(node.op_type == "Conv" for node in proto.graph.node)
    if not on_cpu or not convolves or _weights(proto) > _MOST_WEIGHTS:
        return create_session(proto, folder, name, options, providers), same
    try:
        with tempfile.TemporaryDirectory(prefix="trt-ptq-") as temporary:
            return _nchwc_session(proto, folder, name, threads, Path(temporary))
    except (ModelError, OSError):  # the temporary folder may be full or missing; what else is wrong is told now
        return create_session(proto, folder, name, options), same


def _nchwc_session(
    proto: onnx.ModelProto, folder: Path, name: str, threads: int | None, temporary: Path
) -> tuple[ort.InferenceSession, dict[str, str]]:
    options = session_options(threads)
    options.optimized_model_filepath = str(temporary / _MODEL)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    session = create_session(proto, folder, name, options)
    optimized = onnx.load(options.optimized_model_filepath, load_external_data=False)
    same = {value.name: value.name for value in proto.graph.output}
    nchwc = _observe_before_reordering(optimized)
    if not nchwc:
        return session, same
    del session  # before its successor takes as much memory
    final = session_options(threads)
    final.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimized already
    return create_session(optimized, temporary, name, final), same | nchwc


def _observe_before_reordering(proto: onnx.ModelProto) -> dict[str, str]:
    """Replace each output that is a reordered, unpadded tensor by that tensor; returns new names by old ones."""
    graph = proto.graph
    reordered = {node.output[0]: node for node in graph.node if node.op_type == "ReorderOutput"}
    nchwc = {}
    for value in graph.output:
        node = reordered.get(value.name)
        if (
            node is not None
            and _attribute(node, "channels") % _LARGEST_BLOCK == 0
            and not _attribute(node, "channels_last")
        ):
            nchwc[value.name] = node.input[0]
    used = _read_by_nodes(graph)
    for name in nchwc:
        if name not in used:
            graph.node.remove(reordered[name])
    outputs = {nchwc.get(value.name, value.name): value for value in graph.output}
    copies = []
    for name, value in outputs.items():
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = name
        copies.append(copy)
    del graph.output[:]
    graph.output.extend(copies)
    return nchwc


def _weights(proto: onnx.ModelProto) -> int:
    return sum(math.prod(tensor.dims) for tensor in proto.graph.initializer)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _read_by_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that nodes read, and bodies, which may give one of them back as it is."""
    read: set[str] = set()
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                read |= _read_by_nodes(body) | {value.name for value in body.output}
    return read
