"""A float ONNX model, read, checked and brought to an opset that can hold per-channel Q/DQ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper, shape_inference, version_converter
from onnx_ir.passes import common as passes

from trt_ptq.calibrators.errors import ModelError
from trt_ptq.calibrators.provenance import ModelIdentity

MIN_OPSET = 13  # the first with per-channel DequantizeLinear
_MIN_IR_VERSION = 7  # of opset 13; before 4 every initializer had to be an input, which ours are not
_PROTOBUF_LIMIT = 2**31
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
class TensorSpec:
    """An input of the model. A dimension is a number, or the name ("?" if it has none) of an open one."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        shape = "of any shape" if self.shape is None else f"[{', '.join(map(str, self.shape))}]"
        return f"{self.name}: {self.dtype} {shape}"


@dataclass(frozen=True)
class Model:
    """A model that is not changed any more.

    `proto` has opset 13 or newer, constants as initializers, no functions, and inferred shapes; weights in external
    files stay there. Tensor names are those of the file. `identity` is of the file's content.
    """

    path: Path
    proto: onnx.ModelProto
    identity: ModelIdentity
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]

    def to_ir(self) -> ir.Model:
        """A fresh, modifiable copy of the graph; weights are shared, not copied."""
        model = ir.from_proto(self.proto)
        ir.external_data.set_base_dir(model.graph, self.path.parent)
        return model

    @property
    def opset(self) -> int:
        return _opset(self.proto)


def load_model(path: Path) -> Model:
    """Read the float model at `path`.

    Raises:
        ModelError: missing, truncated, not ONNX, without its external data, or quantized already.
    """
    proto = read_proto(path)
    quantized = sorted({node.op_type for node in _nodes(proto.graph)} & _QUANTIZED_OPS)
    if quantized:
        raise ModelError(f"{path}: already quantized (it has {', '.join(quantized)}): give the float model")
    identity = ModelIdentity(_graph_hash(proto), _weights_hash(proto, path.parent))
    if _opset(proto) < MIN_OPSET:
        proto = _raise_opset(proto, path)
    model = ir.from_proto(proto)
    if model.functions:
        model = passes.InlinePass()(model).model
    model = passes.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model).model
    model = passes.RemoveInitializersFromInputsPass()(model).model
    prepared = shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    prepared.ir_version = max(prepared.ir_version, _MIN_IR_VERSION)
    return Model(
        path=path,
        proto=prepared,
        identity=identity,
        inputs=tuple(_spec(value, path) for value in prepared.graph.input),
        outputs=tuple(value.name for value in prepared.graph.output),
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
    """Read and check any ONNX file; external weights stay outside.

    Raises:
        ModelError: missing, truncated, not ONNX, or without its external data.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not an ONNX model, or truncated: {error}") from error
    if not proto.graph.node or not any(entry.domain in _ONNX_DOMAINS for entry in proto.opset_import):
        raise ModelError(f"{path}: not an ONNX model: it has no graph")
    for tensor in _tensors(proto):
        if external_data_helper.uses_external_data(tensor):
            _check_external(tensor, path)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: not a valid ONNX model: {reason}") from error
    return proto


def model_size_bytes(path: Path) -> int:
    """Size of the ONNX file `path`, its files of external weights included."""
    proto = onnx.load(path, load_external_data=False)
    files = {
        path.parent / external_data_helper.ExternalDataInfo(tensor).location
        for tensor in _tensors(proto)
        if external_data_helper.uses_external_data(tensor)
    }
    return sum(file.stat().st_size for file in {path, *files})


def _check_external(tensor: onnx.TensorProto, path: Path) -> None:
    info = external_data_helper.ExternalDataInfo(tensor)
    file = path.parent / info.location
    if not file.is_file():
        raise ModelError(
            f"{path}: its weights file {file} is missing (tensor {tensor.name!r}): keep both in one folder"
        )
    needed = (info.offset or 0) + (info.length or 0)
    if file.stat().st_size < needed:
        raise ModelError(
            f"{path}: its weights file {file} is truncated: tensor {tensor.name!r} ends at byte {needed}, "
            f"the file at {file.stat().st_size}"
        )


def _raise_opset(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    size = sum(tensor.ByteSize() for tensor in proto.graph.initializer)
    if any(external_data_helper.uses_external_data(tensor) for tensor in _tensors(proto)):
        size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
        if size < _PROTOBUF_LIMIT:
            proto = onnx.load(path)
    if size >= _PROTOBUF_LIMIT:
        raise ModelError(
            f"{path}: opset {_opset(proto)} is too old for per-channel scales and the model too large to convert "
            f"here: export it with opset {MIN_OPSET} or newer"
        )
    try:
        return version_converter.convert_version(proto, MIN_OPSET)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"{path}: cannot be raised from opset {_opset(proto)} to {MIN_OPSET} ({reason}): "
            f"export it with opset {MIN_OPSET} or newer"
        ) from error


def _opset(proto: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in proto.opset_import if entry.domain in _ONNX_DOMAINS))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _nodes(body)


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Weights: initializers and the values of Constant nodes, those of bodies too."""
    yield from proto.graph.initializer
    for node in _nodes(proto.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.g.initializer


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
        array = numpy_helper.to_array(named[name], str(folder))
        hasher.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        if array.dtype == object:
            hasher.update(repr(array.tolist()).encode())
        else:
            hasher.update(array.tobytes())
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
