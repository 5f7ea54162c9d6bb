"""ONNX files written one weight at a time, so that the weights are never in memory together.

A protobuf message is its fields one after another, each as tag, length and content, in any order ("Encoding",
protobuf.dev); so all of a model but its large weights is serialized as usual, and the weights are put in between.
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

_ALIGNMENT = 4096  # of weights in a file of their own, so that they can be mapped into memory as they are
# Tags of fields that have a length: field number * 8 + 2.
_GRAPH, _INITIALIZER, _RAW_DATA = (bytes([number * 8 + 2]) for number in (7, 5, 9))


@dataclass(frozen=True)
class _Lifted:
    """A model without the values of its large weights, and those by name."""

    shell: onnx.ModelProto
    large: dict[str, ir.TensorProtocol]


def write_one_file(model: ir.Model, path: Path) -> None:
    """Write all of `model` to `path`; protobuf allows 2 GiB.

    Raises:
        OSError: `path` cannot be written.
    """
    lifted = _lift(model)
    heads = [_head(tensor, lifted.large) for tensor in lifted.shell.graph.initializer]
    names = [tensor.name for tensor in lifted.shell.graph.initializer]
    del lifted.shell.graph.initializer[:]
    graph = lifted.shell.graph.SerializeToString(deterministic=True)
    lifted.shell.ClearField("graph")
    sizes = [
        len(head) + (lifted.large[name].nbytes if name in lifted.large else 0)
        for name, head in zip(names, heads, strict=True)
    ]
    length = len(graph) + sum(len(_INITIALIZER) + len(_varint(size)) + size for size in sizes)
    with path.open("wb") as file:
        file.write(lifted.shell.SerializeToString(deterministic=True))
        file.write(_GRAPH + _varint(length) + graph)
        for name, head, size in zip(names, heads, sizes, strict=True):
            file.write(_INITIALIZER + _varint(size) + head)
            if name in lifted.large:
                _write_values(file, lifted.large[name])


def _head(tensor: onnx.TensorProto, large: Mapping[str, ir.TensorProtocol]) -> bytes:
    """The whole tensor, or all that comes before the values of a large one."""
    head: bytes = tensor.SerializeToString(deterministic=True)
    return head + _RAW_DATA + _varint(large[tensor.name].nbytes) if tensor.name in large else head


def write_two_files(model: ir.Model, path: Path, data: Path) -> None:
    """Write `model` to `path`, and its large weights to `data` in the same folder.

    Raises:
        OSError: one of them cannot be written.
    """
    path.write_bytes(write_weights(model, data).SerializeToString(deterministic=True))


def write_weights(model: ir.Model, data: Path) -> onnx.ModelProto:
    """Write the large weights of `model` to `data`; returns the rest of it, which names that file.

    Raises:
        OSError: it cannot be written.
    """
    lifted = _lift(model)
    with data.open("wb") as file:
        for tensor in lifted.shell.graph.initializer:
            if tensor.name not in lifted.large:
                continue
            values = lifted.large[tensor.name]
            file.seek(math.ceil(file.tell() / _ALIGNMENT) * _ALIGNMENT)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", values.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            _write_values(file, values)
    return lifted.shell


def _lift(model: ir.Model) -> _Lifted:
    values = [value for value in model.graph.initializers.values() if _is_large(value.const_value)]
    large = {str(value.name): value.const_value for value in values if value.const_value is not None}
    try:
        for value in values:
            value.const_value = _nothing_like(large[str(value.name)], str(value.name))
        shell = ir.to_proto(model)
    finally:
        for value in values:
            value.const_value = large[str(value.name)]
    for tensor in shell.graph.initializer:
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    return _Lifted(shell, large)


def _is_large(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > SMALL_BYTES


def _nothing_like(tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
    """A tensor of that type and shape whose values are not looked at when it is serialized."""
    return ir.ExternalTensor("", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


def _write_values(file: BinaryIO, tensor: ir.TensorProtocol) -> None:
    start = file.tell()
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(file)  # from file to file
    else:
        file.write(tensor.tobytes())
    if file.tell() - start != tensor.nbytes:
        raise ModelError(f"weight {tensor.name!r} is not as long as its shape says: was its file changed meanwhile?")


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
