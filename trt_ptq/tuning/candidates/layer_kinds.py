"""Kinds of layers, told by their names: the attention projections of all blocks, their MLPs, the head."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_NUMBER = re.compile(r"\d+")


def kinds_of_layers(sources: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Group layers: those whose names differ in numbers only are of one kind, and so are those that read one tensor.

    Args:
        sources: the tensors whose ranges decide on what each layer reads; see `activation_sources`.

    Returns:
        The layers of each kind, in the order of `sources`.
    """
    kinds = {layer: _NUMBER.sub("*", layer) for layer in sources}
    joined = {kind: kind for kind in kinds.values()}

    def first(kind: str) -> str:
        while joined[kind] != kind:
            kind = joined[kind]
        return kind

    readers: dict[str, str] = {}
    for layer, tensors in sources.items():
        for tensor in tensors:
            joined[first(kinds[layer])] = first(readers.setdefault(tensor, kinds[layer]))
    groups: dict[str, list[str]] = {}
    for layer, kind in kinds.items():
        groups.setdefault(first(kind), []).append(layer)
    return [tuple(layers) for layers in groups.values()]
