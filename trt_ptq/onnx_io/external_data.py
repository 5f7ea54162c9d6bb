"""External data: locate, check and read weights stored in files next to the model, without copying them."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from trt_ptq.errors import ModelError
from trt_ptq.types import Array

# Larger tensors are weights; shape inference and opset conversion read only smaller ones (shapes, axes, scales).
SMALL_BYTES = 2**16
NATIVE_DTYPE_KINDS = "biufc"  # same bytes in memory and on disk; others (bfloat16, int4) are unpacked
_CHUNK_BYTES = 2**22

T = TypeVar("T")


@dataclass(frozen=True)
class ExternalWeights:
    """The external weights files of a model (symbolic links resolved), and the folder that contains all of them."""

    folder: Path
    files: frozenset[Path]


@dataclass(frozen=True)
class _FileRange:
    """The bytes of one tensor: `size_bytes` starting at `offset` in `file` (symbolic links resolved)."""

    file: Path
    offset: int
    size_bytes: int

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes in chunks of a few MB. Chunks share one buffer, so each is valid until the next.

        Raises:
            ModelError: The file cannot be read, or was truncated meanwhile.
        """
        buffer = memoryview(bytearray(min(_CHUNK_BYTES, self.size_bytes)))
        remaining = self.size_bytes
        try:
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.offset)
                while remaining:
                    count = file.readinto(buffer[:remaining])
                    if not count:
                        raise ModelError(f"{self.file}: this weights file was truncated while it was being read")
                    yield buffer[:count]
                    remaining -= count
        except OSError as error:
            raise ModelError(f"cannot read the weights file {self.file}: {error.strerror or error}") from error


def _all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from proto.graph.initializer
    yield from _small_tensors(proto)


def _small_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Sparse initializers, tensor attributes of nodes and initializers of nested graphs, functions included."""
    for sparse in proto.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    pending = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while pending:
        for attribute in pending.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for body in [attribute.g, *attribute.graphs]:
                yield from body.initializer
                yield from (part for sparse in body.sparse_initializer for part in (sparse.values, sparse.indices))
                pending += body.node


def external_initializers(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers of the main graph that are stored as external data, by name."""
    return {tensor.name: tensor for tensor in proto.graph.initializer if uses_external_data(tensor)}


def external_files(path: Path) -> set[Path]:
    """The external data files that the ONNX file `path` refers to (symbolic links resolved); they may be missing."""
    proto = onnx.load(path, load_external_data=False)
    return {
        (path.parent / ExternalDataInfo(tensor).location).resolve()
        for tensor in _all_tensors(proto)
        if uses_external_data(tensor)
    }


def resolve_external_data(proto: onnx.ModelProto, path: Path) -> ExternalWeights:
    """Check the external data of `proto` and load it into `proto`, except for large initializers.

    Large initializers stay external; their locations become relative to the returned folder. The model and its
    weights may be symbolic links (as in the Hugging Face cache) if their targets are in one folder.

    Args:
        proto: A model loaded from `path` without its external data; modified in place.
        path: The model file.

    Raises:
        ModelError: A file is missing, truncated, or outside the model's folder; names the tensor and the file.
    """
    initializers = external_initializers(proto).values()
    others = [tensor for tensor in _small_tensors(proto) if uses_external_data(tensor)]
    ranges = [_locate(tensor, path.parent, path) for tensor in (*initializers, *others)]
    files = frozenset(file_range.file for file_range in ranges)
    folder = _common_folder(path, files)
    for index, (tensor, file_range) in enumerate(zip((*initializers, *others), ranges, strict=True)):
        if index < len(initializers) and file_range.size_bytes > SMALL_BYTES:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = file_range.file.relative_to(folder).as_posix()
        else:
            tensor.raw_data = b"".join(bytes(chunk) for chunk in file_range.chunks())
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    return ExternalWeights(folder, files)


def _common_folder(path: Path, files: frozenset[Path]) -> Path:
    """The folder of the model or of its link target; ONNX Runtime refuses external data from anywhere else."""
    folders = [path.parent.resolve(), path.resolve().parent]
    for folder in folders:
        if all(file.is_relative_to(folder) for file in files):
            return folder
    outside = next(file for file in files if not file.is_relative_to(folders[0]))
    raise ModelError(
        f"{path}: its weights file {outside} is outside the model's folder, which ONNX Runtime does not allow: copy "
        "both into one folder"
    )


def _locate(tensor: onnx.TensorProto, folder: Path, model: Path) -> _FileRange:
    """Locate the values of an external tensor; `model` is used in messages only.

    Raises:
        ModelError: The file is missing or truncated, or its entry does not match the tensor's shape.
    """
    try:
        info = ExternalDataInfo(tensor)
        needed = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{model}: the external data of tensor {tensor.name!r} is invalid: {error}") from error
    file = folder / info.location
    if Path(info.location).is_absolute():
        raise ModelError(
            f"{model}: tensor {tensor.name!r} refers to its weights file by an absolute path, {file}, which ONNX "
            "Runtime refuses: export the model with its weights next to it"
        )
    if not file.is_file():
        linked = f" ({model} is a symbolic link: pass {model.resolve()} instead)" if model.is_symlink() else ""
        raise ModelError(
            f"{model}: its weights file {file} is missing (tensor {tensor.name!r}): keep both in one folder{linked}"
        )
    if info.length is not None and info.length != needed:
        raise ModelError(
            f"{model}: tensor {tensor.name!r} has {info.length} bytes in {file}, but its shape needs {needed} "
            f"({list(tensor.dims)}): export the model again"
        )
    status = file.stat()
    offset = info.offset or 0
    if status.st_size < offset + needed:
        raise ModelError(
            f"{model}: its weights file {file} is truncated: tensor {tensor.name!r} ends at byte {offset + needed}, "
            f"the file at {status.st_size}"
        )
    if status.st_nlink > 1:
        raise ModelError(
            f"{model}: its weights file {file} has {status.st_nlink} hard links, which ONNX refuses for security "
            "reasons: use a copy of the file"
        )
    return _FileRange(file.resolve(), offset, needed)


def without_values(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with empty tensors in place of external ones, since ONNX's checker searches the working directory."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for tensor in _all_tensors(bare):
        if uses_external_data(tensor):
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.dims[:] = [0]
    return bare


def read_once(tensor: ir.TensorProtocol, function: Callable[[Array], T]) -> T:
    """Return `function(values)`, and unmap the tensor's file afterwards if it was memory-mapped."""
    result = function(tensor.numpy())
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    return result


def hash_values(hasher: hashlib._Hash, tensor: onnx.TensorProto, folder: Path) -> None:
    """Hash the type, shape and values of `tensor` without copying them; its external file is below `folder`."""
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if uses_external_data(tensor) and dtype.kind in NATIVE_DTYPE_KINDS and sys.byteorder == "little":
        hasher.update(f"{dtype.str}|{tuple(tensor.dims)}|".encode())
        for chunk in _locate(tensor, folder, folder).chunks():
            hasher.update(chunk)
        return
    array = numpy_helper.to_array(tensor, str(folder))
    kind = array.dtype.name if array.dtype.kind == "V" else array.dtype.str  # ".str" of all 8-bit floats is equal
    hasher.update(f"{kind}|{array.shape}|".encode())
    if array.dtype == object:
        hasher.update(repr(array.tolist()).encode())
    else:
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
