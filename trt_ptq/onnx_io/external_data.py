"""Weights in files beside the model: found, checked and read in parts, so that no second copy of them is made."""

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

# Larger tensors are weights; smaller ones (shapes, axes, scales) are what inference of shapes and opsets look into.
SMALL_BYTES = 2**16
_CHUNK_BYTES = 2**22
_AS_IN_FILES = "biufc"  # kinds of NumPy's own types; others (bfloat16, int4) are unpacked first

T = TypeVar("T")


@dataclass(frozen=True)
class ExternalWeights:
    """The files beside a model that its weights are in, links resolved, and the folder that has them all."""

    folder: Path
    files: frozenset[Path]


@dataclass(frozen=True)
class _Part:
    """Where the values of one tensor lie: `size_bytes` from `offset` on in `file`, whose links are resolved."""

    file: Path
    offset: int
    size_bytes: int

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, a few MB at a time; each is overwritten by the next.

        Raises:
            ModelError: the file cannot be read, or has become shorter.
        """
        buffer = memoryview(bytearray(min(_CHUNK_BYTES, self.size_bytes)))
        left = self.size_bytes
        try:
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.offset)
                while left:
                    count = file.readinto(buffer[:left])
                    if not count:
                        raise ModelError(f"{self.file}: this weights file became shorter while it was read")
                    yield buffer[:count]
                    left -= count
        except OSError as error:
            raise ModelError(f"cannot read the weights file {self.file}: {error.strerror or error}") from error


def _all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from proto.graph.initializer
    yield from _in_nodes(proto)


def _in_nodes(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Tensors that attributes hold, and initializers of bodies; those in functions too."""
    waiting = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while waiting:
        for attribute in waiting.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for body in [attribute.g, *attribute.graphs]:
                yield from body.initializer
                waiting += body.node


def external_initializers(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers of the main graph whose values are in files beside the model, by name."""
    return {tensor.name: tensor for tensor in proto.graph.initializer if uses_external_data(tensor)}


def external_files(path: Path) -> set[Path]:
    """The files that the ONNX file `path` says its weights are in, links resolved; they may be missing."""
    proto = onnx.load(path, load_external_data=False)
    return {
        (path.parent / ExternalDataInfo(tensor).location).resolve()
        for tensor in _all_tensors(proto)
        if uses_external_data(tensor)
    }


def resolve_external_data(proto: onnx.ModelProto, path: Path) -> ExternalWeights:
    """Check external weights of `proto`, which comes from `path`, and read into it all but large initializers.

    The locations of those are made relative to the folder that is returned: a model and its weights may be links, as
    Hugging Face's cache has them, if what they lead to lies in one folder.

    Raises:
        ModelError: a file is missing, too short, or outside of the model's folder; names tensor and file.
    """
    initializers = external_initializers(proto).values()
    others = [tensor for tensor in _in_nodes(proto) if uses_external_data(tensor)]
    parts = [_locate(tensor, path.parent, path) for tensor in (*initializers, *others)]
    files = frozenset(part.file for part in parts)
    folder = _folder_of_all(path, files)
    for index, (tensor, part) in enumerate(zip((*initializers, *others), parts, strict=True)):
        if index < len(initializers) and part.size_bytes > SMALL_BYTES:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = part.file.relative_to(folder).as_posix()
        else:
            tensor.raw_data = b"".join(bytes(chunk) for chunk in part.chunks())
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    return ExternalWeights(folder, files)


def _folder_of_all(path: Path, files: frozenset[Path]) -> Path:
    """The folder of the model, or of what it is a link to; ONNX Runtime reads no weights from elsewhere."""
    folders = [path.parent.resolve(), path.resolve().parent]
    for folder in folders:
        if all(file.is_relative_to(folder) for file in files):
            return folder
    outside = next(file for file in files if not file.is_relative_to(folders[0]))
    raise ModelError(
        f"{path}: its weights file {outside} is not in the model's folder, and ONNX Runtime reads weights from nowhere "
        "else: copy both into one folder"
    )


def _locate(tensor: onnx.TensorProto, folder: Path, model: Path) -> _Part:
    """Where an external tensor's values are; `model` is for messages.

    Raises:
        ModelError: the file is missing, too short, or does not have what the tensor's shape needs.
    """
    try:
        info = ExternalDataInfo(tensor)
        needed = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{model}: tensor {tensor.name!r} of external weights is not valid: {error}") from error
    file = folder / info.location
    if Path(info.location).is_absolute():
        raise ModelError(
            f"{model}: tensor {tensor.name!r} names its weights file by an absolute path, {file}, which ONNX Runtime "
            "refuses: export the model with its weights beside it"
        )
    if not file.is_file():
        linked = f" ({model} is a link: give {model.resolve()} itself)" if model.is_symlink() else ""
        raise ModelError(
            f"{model}: its weights file {file} is missing (tensor {tensor.name!r}): keep both in one folder{linked}"
        )
    if info.length is not None and info.length != needed:
        raise ModelError(
            f"{model}: tensor {tensor.name!r} has {info.length} bytes in {file}, but needs {needed} for its shape "
            f"{list(tensor.dims)}: export the model again"
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
            f"{model}: its weights file {file} has {status.st_nlink} hard links, which ONNX refuses, since they may "
            "lead anywhere: give a copy of it"
        )
    return _Part(file.resolve(), offset, needed)


def without_values(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with empty tensors in place of external ones: ONNX's checker looks for their files where it is run."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for tensor in _all_tensors(bare):
        if uses_external_data(tensor):
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.dims[:] = [0]
    return bare


def read_once(tensor: ir.TensorProtocol, function: Callable[[Array], T]) -> T:
    """`function` of the tensor's values; what was mapped into memory from a file for it is unmapped again."""
    result = function(tensor.numpy())
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    return result


def hash_values(hasher: hashlib._Hash, tensor: onnx.TensorProto, folder: Path) -> None:
    """Hash type, shape and values of `tensor`, whose external file is below `folder`, without a copy of them."""
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if uses_external_data(tensor) and dtype.kind in _AS_IN_FILES and sys.byteorder == "little":
        hasher.update(f"{dtype.str}|{tuple(tensor.dims)}|".encode())
        for chunk in _locate(tensor, folder, folder).chunks():
            hasher.update(chunk)
        return
    array = numpy_helper.to_array(tensor, str(folder))
    hasher.update(f"{array.dtype.str}|{array.shape}|".encode())
    if array.dtype == object:
        hasher.update(repr(array.tolist()).encode())
    else:
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
