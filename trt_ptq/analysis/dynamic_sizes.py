"""Tensor shapes from input shapes, as far as the names of dynamic dimensions determine them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from trt_ptq.types import Feeds, TensorSpec

Shape = tuple[int, ...]


def dynamic_sizes(inputs: Sequence[TensorSpec], feeds: Feeds) -> dict[str, int]:
    """Sizes of the named dynamic dimensions for a batch; without those on which the inputs disagree."""
    sizes: dict[str, set[int]] = {}
    for spec in inputs:
        for dimension, size in zip(spec.shape, feeds[spec.name].shape, strict=False):
            if isinstance(dimension, str):
                sizes.setdefault(dimension, set()).add(size)
    return {dimension: candidates.pop() for dimension, candidates in sizes.items() if len(candidates) == 1}


def known_shape(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> Shape | None:
    """The shape of `value` with `sizes` (see `dynamic_sizes`) inserted; None if a dimension remains unknown."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    axes = [
        axis.dim_value if axis.dim_value > 0 else sizes.get(axis.dim_param) for axis in value.type.tensor_type.shape.dim
    ]
    shape = tuple(axis for axis in axes if axis is not None)
    return shape if len(shape) == len(axes) else None
