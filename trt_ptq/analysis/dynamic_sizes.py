"""Shapes of tensors from the shapes of a model's inputs, as far as the names of open dimensions tell them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from trt_ptq.types import Feeds, TensorSpec

Shape = tuple[int, ...]


def dynamic_sizes(inputs: Sequence[TensorSpec], feeds: Feeds) -> dict[str, int]:
    """Sizes of the named open dimensions when the model is fed with `feeds`, where the inputs agree on them."""
    seen: dict[str, set[int]] = {}
    for one in inputs:
        for name, size in zip(one.shape or (), feeds[one.name].shape, strict=False):
            if isinstance(name, str):
                seen.setdefault(name, set()).add(size)
    return {name: found.pop() for name, found in seen.items() if len(found) == 1}


def known_shape(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> Shape | None:
    """The shape of `value` for these `dynamic_sizes`; None where the graph does not tell."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    axes = [
        axis.dim_value if axis.dim_value > 0 else sizes.get(axis.dim_param) for axis in value.type.tensor_type.shape.dim
    ]
    shape = tuple(axis for axis in axes if axis is not None)
    return shape if len(shape) == len(axes) else None
