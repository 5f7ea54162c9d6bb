"""A float ONNX model, read, checked and brought to an opset that can hold per-channel Q/DQ."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import shape_inference, version_converter
from onnx_ir.passes import common as passes

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.external_data import (
    SMALL_BYTES,
    ExternalWeights,
    external_files,
    external_initializers,
    hash_values,
    resolve_external_data,
    without_values,
)
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import TensorSpec

MIN_OPSET = 13  # the first with per-channel DequantizeLinear
_MIN_IR_VERSION = 7  # of opset 13; before 4 every initializer had to be an input, which ours are not
_ONNX_DOMAINS = ("", "ai.onnx")
_QUANTIZED_OPS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "QGemm",
}


@dataclass(frozen=True)
class Model:
    """A model that is not changed any more.

    `proto` has opset 13 or newer, constants as initializers, no functions, and inferred shapes; large weights in
    external files stay there, at places relative to `external.folder`. Tensor names are those of the file. `identity`
    is of the file's content.
    """

    path: Path
    proto: onnx.ModelProto
    identity: ModelIdentity
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    external: ExternalWeights

    def to_ir(self) -> ir.Model:
        """A fresh, modifiable copy of the graph; weights are shared, not copied."""
        model = ir.from_proto(self.proto)
        ir.external_data.set_base_dir(model.graph, self.external.folder)
        return model

    @property
    def opset(self) -> int:
        return _opset(self.proto)


def load_model(path: Path) -> Model:
    """Read the float model at `path`.

    Raises:
        ModelError: missing, truncated, not ONNX, without its external data, or quantized already.
    """
    proto, external = _read(path)
    quantized = sorted({node.op_type for node in _nodes(proto.graph)} & _QUANTIZED_OPS)
    if quantized:
        raise ModelError(f"{path}: already quantized (it has {', '.join(quantized)}): give the float model")
    identity = ModelIdentity(_graph_hash(proto), _weights_hash(proto, external.folder))
    if _opset(proto) < MIN_OPSET:
        proto = _raise_opset(proto, path)
    model = ir.from_proto(proto)
    if model.functions:
        model = passes.InlinePass()(model).model
    model = passes.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model).model
    model = passes.RemoveInitializersFromInputsPass()(model).model
    proto = ir.to_proto(model)
    del model
    gc.collect()  # a graph is full of cycles, which would keep the weights as they were read
    prepared = _with_shapes(proto)
    prepared.ir_version = max(prepared.ir_version, _MIN_IR_VERSION)
    return Model(
        path=path,
        proto=prepared,
        identity=identity,
        inputs=tuple(_spec(value, path) for value in prepared.graph.input),
        outputs=tuple(value.name for value in prepared.graph.output),
        external=external,
    )


def read_inputs(path: Path) -> tuple[TensorSpec, ...]:
    """The inputs of any ONNX model, quantized or not.

    Raises:
        ModelError: see `read_proto`.
    """
    graph = read_proto(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(_spec(value, path) for value in graph.input if value.name not in constants)


def read_proto(path: Path) -> onnx.ModelProto:
    """Read and check any ONNX file; large external weights stay outside.

    Raises:
        ModelError: missing, truncated, not ONNX, or without its external data.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[onnx.ModelProto, ExternalWeights]:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not an ONNX model, or truncated: {error}") from error
    if not proto.graph.node or not any(entry.domain in _ONNX_DOMAINS for entry in proto.opset_import):
        raise ModelError(f"{path}: not an ONNX model: it has no graph")
    external = resolve_external_data(proto, path)
    try:
        onnx.checker.check_model(without_values(proto) if external.files else str(path))
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: not a valid ONNX model: {reason}") from error
    return proto, external


def model_size_bytes(path: Path) -> int:
    """Size of the ONNX file `path`, its files of external weights included."""
    return sum(file.stat().st_size for file in {path, *external_files(path)})


def _raise_opset(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    outside = external_initializers(proto)
    try:
        raised = version_converter.convert_version(proto, MIN_OPSET)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"{path}: cannot be raised from opset {_opset(proto)} to {MIN_OPSET} ({reason}): "
            f"export it with opset {MIN_OPSET} or newer"
        ) from error
    for tensor in raised.graph.initializer:
        if tensor.name in outside:
            tensor.CopyFrom(outside[tensor.name])  # up to onnx 1.18 the converter forgets where the values are
    return raised


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all shapes that ONNX infers. Its large weights are laid aside, since inference copies all it gets
    several times; `proto` is without them afterwards."""
    weights = {}
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) > SMALL_BYTES:
            weights[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
    inferred = shape_inference.infer_shapes(proto, data_prop=True)
    for tensor in inferred.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = weights.pop(tensor.name)
    return inferred


def _opset(proto: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in proto.opset_import if entry.domain in _ONNX_DOMAINS))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _nodes(body)


def _graph_hash(proto: onnx.ModelProto) -> str:
    """Hash of nodes, attributes, tensor names, functions, inputs and outputs: no weights, comments or node names."""
    hasher = hashlib.sha256()
    for node in proto.graph.node:
        if _is_weight(node):
            continue
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        for field in ("name", "doc_string", "metadata_props"):
            bare.ClearField(field)
        hasher.update(bare.SerializeToString(deterministic=True))
    for function in proto.functions:
        hasher.update(function.SerializeToString(deterministic=True))
    for value in [*proto.graph.input, *proto.graph.output]:
        hasher.update(value.name.encode() + value.type.SerializeToString(deterministic=True))
    return hasher.hexdigest()


def _is_weight(node: onnx.NodeProto) -> bool:
    """Whether a node is a Constant that holds a tensor; one of bare numbers is part of the graph."""
    return node.op_type == "Constant" and node.attribute[0].HasField("t")


def _weights_hash(proto: onnx.ModelProto, folder: Path) -> str:
    """Hash of the weights' values, in order of their names."""
    named = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if _is_weight(node):
            named[node.output[0]] = node.attribute[0].t
    hasher = hashlib.sha256()
    for name in sorted(named):
        hasher.update(f"{name}|".encode())
        hash_values(hasher, named[name], folder)
    return hasher.hexdigest()


def _spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"{path}: input {value.name!r} is not a tensor, which TensorRT cannot take")
    tensor = value.type.tensor_type
    dtype: npt.DTypeLike = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or "?"
            for dim in tensor.shape.dim
        )
    return TensorSpec(value.name, np.dtype(dtype), shape)
