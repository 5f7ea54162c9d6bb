"""Write ONNX files one weight at a time, so that all weights together need not fit into memory.

A protobuf message is the concatenation of its fields in any order, each as tag, length and content ("Encoding",
protobuf.dev). Everything but the large weights is therefore serialized as usual, and the weights are streamed between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.external_data import SMALL_BYTES

_ALIGNMENT = 4096  # of tensors in an external file, so that they can be memory-mapped
# Tags of length-delimited fields: field number * 8 + 2.
_GRAPH, _INITIALIZER, _RAW_DATA = (bytes([number * 8 + 2]) for number in (7, 5, 9))


@dataclass(frozen=True)
class _DetachedWeights:
    """A model without the values of its large weights, and these weights by name."""

    proto: onnx.ModelProto
    weights: dict[str, ir.TensorProtocol]


def write_one_file(model: ir.Model, path: Path) -> None:
    """Write all of `model` to `path`; protobuf's limit is 2 GiB.

    Raises:
        OSError: `path` cannot be written.
    """
    detached = _detach_weights(model)
    proto, weights = detached.proto, detached.weights
    heads = [_head(tensor, weights) for tensor in proto.graph.initializer]
    names = [tensor.name for tensor in proto.graph.initializer]
    del proto.graph.initializer[:]
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    sizes = [
        len(head) + (weights[name].nbytes if name in weights else 0) for name, head in zip(names, heads, strict=True)
    ]
    length = len(graph) + sum(len(_INITIALIZER) + len(_varint(size)) + size for size in sizes)
    with path.open("wb") as file:
        file.write(proto.SerializeToString(deterministic=True))
        file.write(_GRAPH + _varint(length) + graph)
        for name, head, size in zip(names, heads, sizes, strict=True):
            file.write(_INITIALIZER + _varint(size) + head)
            if name in weights:
                _write_values(file, weights[name])


def _head(tensor: onnx.TensorProto, weights: Mapping[str, ir.TensorProtocol]) -> bytes:
    """The serialized tensor; for a large weight everything before its values."""
    head: bytes = tensor.SerializeToString(deterministic=True)
    return head + _RAW_DATA + _varint(weights[tensor.name].nbytes) if tensor.name in weights else head


def write_two_files(model: ir.Model, path: Path, data: Path) -> None:
    """Write `model` to `path`, and its large weights to `data` in the same folder.

    Raises:
        OSError: One of them cannot be written.
    """
    path.write_bytes(write_weights(model, data).SerializeToString(deterministic=True))


def write_weights(model: ir.Model, data: Path) -> onnx.ModelProto:
    """Write the large weights of `model` to `data`; return the model with references to that file.

    Raises:
        OSError: `data` cannot be written.
    """
    detached = _detach_weights(model)
    with data.open("wb") as file:
        for tensor in detached.proto.graph.initializer:
            if tensor.name not in detached.weights:
                continue
            values = detached.weights[tensor.name]
            file.seek(math.ceil(file.tell() / _ALIGNMENT) * _ALIGNMENT)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", values.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            _write_values(file, values)
    return detached.proto


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """`model` without the values of its large weights, which keep their types and shapes."""
    return _detach_weights(model).proto


def _detach_weights(model: ir.Model) -> _DetachedWeights:
    values = [value for value in model.graph.initializers.values() if _is_large(value.const_value)]
    weights = {str(value.name): value.const_value for value in values if value.const_value is not None}
    try:
        for value in values:
            value.const_value = _placeholder(weights[str(value.name)], str(value.name))
        proto = ir.to_proto(model)
    finally:
        for value in values:
            value.const_value = weights[str(value.name)]
    for tensor in proto.graph.initializer:
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    return _DetachedWeights(proto, weights)


def _is_large(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > SMALL_BYTES


def _placeholder(tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
    """A tensor of the same type and shape whose values are not read on serialization."""
    return ir.ExternalTensor("", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


def _write_values(file: BinaryIO, tensor: ir.TensorProtocol) -> None:
    start = file.tell()
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(file)  # copies from file to file
    else:
        file.write(tensor.tobytes())
    if file.tell() - start != tensor.nbytes:
        raise ModelError(
            f"the size of weight {tensor.name!r} does not match its shape: was its file changed in the meantime?"
        )


def _varint(number: int) -> bytes:
    """Protobuf's varint: seven bits per byte, lowest first; the top bit marks that more bytes follow."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
