"""Marks tensors of a network whose values the engine reports while it runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from trt_ptq.engines.library import TensorRTLibrary
from trt_ptq.errors import EngineError


def mark_debug_tensors(library: TensorRTLibrary, network: Any, names: Collection[str]) -> None:
    """Mark the tensors `names` of a network as debug tensors. Each of them ends a fusion, so the engine is slower.

    Raises:
        EngineError: this library has no debug tensors, or the network no such tensor.
    """
    library.require(hasattr(network, "mark_debug"), "debug tensors (TensorRT 10 and later have them)")
    missing = set(names)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for output in range(layer.num_outputs):
            tensor = layer.get_output(output)
            if tensor is None or tensor.name not in missing:
                continue
            if not network.mark_debug(tensor):
                raise EngineError(f"{library.title} {library.version} refuses {tensor.name!r} as a debug tensor")
            missing.remove(tensor.name)
    if missing:
        raise EngineError(f"the network of {library.title} has no tensor {min(missing)!r} to mark as a debug tensor")
