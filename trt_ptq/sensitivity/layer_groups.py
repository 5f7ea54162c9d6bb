"""Layers that follow each other share the model behind them: one session, in which each is switched to INT8 in turn.

To load the part of a decoder behind a layer takes ten times as long as to run it on a short text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trt_ptq.analysis.subgraph import NodeInput, Rewiring, switch_of
from trt_ptq.sensitivity.layers import Layer, LayerInputBatch, LayerInputReader, feed_name
from trt_ptq.types import Array

_MAX_LAYERS = 16  # like the next one a choice: the more layers, the fewer sessions, and the more memory for weights
_MAX_WEIGHTS = 2**24  # values of all weights of a group: they are fed in FP32, and kept in memory meanwhile


@dataclass(frozen=True)
class LayerGroup:
    """Layers that follow each other in the model."""

    layers: tuple[Layer, ...]

    @cached_property
    def rewiring(self) -> Rewiring:
        """Feeds all weights from outside, and each quantized activation where it is switched on."""
        weights: dict[NodeInput, str] = {}
        activations: dict[NodeInput, str] = {}
        for number, layer in enumerate(self.layers):
            for item in layer.inputs:
                fed = weights if item.axis is not None else activations
                fed[item.node_output, item.index] = _of_layer(number, feed_name(item))
        return Rewiring((*weights.values(), *activations.values()), weights, activations)

    def exact(self, inputs: LayerInputReader) -> dict[str, Array]:
        """What to feed so that no layer is in INT8."""
        feeds: dict[str, Array] = {}
        for number, layer in enumerate(self.layers):
            feeds |= {_of_layer(number, name): weight for name, weight in inputs.exact_weights(layer).items()}
            for name in layer.activations:
                feeds |= _switched(_of_layer(number, name), None)
        return feeds

    def with_int8(self, layer: Layer, batch: LayerInputBatch) -> dict[str, Array]:
        """What to feed in addition so that `layer` is in INT8."""
        number = self.layers.index(layer)
        feeds = {_of_layer(number, name): batch.int8[name] for name in layer.weights}
        for name in layer.activations:
            feeds |= _switched(_of_layer(number, name), batch.int8[name])
        return feeds


def group_layers(layers: Sequence[Layer], inputs: LayerInputReader) -> list[LayerGroup]:
    """Group `layers`, in graph order: up to 16 of them, with up to 16 million values of weights."""
    groups: list[list[Layer]] = []
    room = 0
    for layer in layers:
        size = inputs.num_weights(layer)
        if not groups or size > room or len(groups[-1]) == _MAX_LAYERS:
            groups.append([])
            room = _MAX_WEIGHTS
        groups[-1].append(layer)
        room -= size
    return [LayerGroup(tuple(group)) for group in groups]


def _switched(name: str, values: Array | None) -> dict[str, Array]:
    """Feed `values`, or nothing."""
    fed = np.zeros(1, np.float32) if values is None else values
    return {name: fed, switch_of(name): np.array([values is not None])}


def _of_layer(number: int, name: str) -> str:
    return f"{name}.{number}"
