"""Drop shapes that a model declares for its tensors but that its nodes contradict.

Tools that edit models leave them behind: a batch size of 1 after the batch became dynamic, ranks of an older graph.
Runtimes compute shapes from the inputs, so declared ones must not decide anything.
"""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
from onnx import shape_inference

_LOGGER = logging.getLogger(__name__)
_BATCH_SIZE = 3  # stands for a dynamic first axis, so that sizes which depend on it differ from declared ones


def drop_stale_shapes(proto: onnx.ModelProto, path: Path) -> None:
    """Remove all declared shapes, in place, if one of them is wrong; types stay.

    Args:
        proto: A model that shape inference can copy: without large weights.
        path: The model file, for messages.
    """
    declared = {value.name: value for value in (*proto.graph.value_info, *proto.graph.output)}
    inferred = _infer_for_one_batch(proto)
    stale = [
        name
        for name, value in declared.items()
        if name in inferred and _contradicts(value.type.tensor_type, inferred[name].type.tensor_type)
    ]
    if not stale:
        return
    _LOGGER.warning(
        "%s: the declared shape of %r and %d more is wrong, so declared shapes are ignored",
        path,
        stale[0],
        len(stale) - 1,
    )
    constants = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.value_info:
        if value.name not in constants:
            value.type.tensor_type.ClearField("shape")
    for value in proto.graph.output:
        if value.name in stale:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for _ in inferred[value.name].type.tensor_type.shape.dim:
                shape.dim.add()


def _infer_for_one_batch(proto: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """The tensors whose shapes follow from the inputs alone, with a fixed batch size."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    constants = {tensor.name for tensor in bare.graph.initializer}
    for value in bare.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = _BATCH_SIZE
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(bare, data_prop=True)
    return {
        value.name: value
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _contradicts(declared: onnx.TypeProto.Tensor, inferred: onnx.TypeProto.Tensor) -> bool:
    """Whether the ranks differ, or a size that both know."""
    if not declared.HasField("shape"):
        return False
    if len(declared.shape.dim) != len(inferred.shape.dim):
        return True
    return any(
        known.HasField("dim_value") and actual.HasField("dim_value") and known.dim_value != actual.dim_value
        for known, actual in zip(declared.shape.dim, inferred.shape.dim, strict=True)
    )
