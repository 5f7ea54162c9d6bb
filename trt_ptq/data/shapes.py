"""Shape profiles from the data that was seen, for users who give none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from trt_ptq.calibrators.batches import Batch, BatchSource
from trt_ptq.engines.spec import ShapeProfile
from trt_ptq.graph.model import TensorSpec

Shapes = Mapping[str, Counter[tuple[int, ...]]]


class ShapeWatch:
    """Passes batches on and counts the shapes of each input."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self.seen: dict[str, Counter[tuple[int, ...]]] = {}

    @property
    def total(self) -> int | None:
        return self._source.total

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            for name, array in batch.feeds.items():
                self.seen.setdefault(name, Counter())[np.shape(array)] += 1
            yield batch


def profiles_from_shapes(seen: Shapes, inputs: tuple[TensorSpec, ...]) -> dict[str, ShapeProfile]:
    """A profile for each input with open dimensions: from the smallest to the largest seen on each axis, tuned for the
    most frequent shape. An open first axis, the batch, starts at 1."""
    profiles = {}
    for one in inputs:
        if one.shape is None or not one.is_open:
            continue
        shapes = list(seen[one.name])
        smallest = [min(axis) for axis in zip(*shapes, strict=True)]
        if isinstance(one.shape[0], str):
            smallest[0] = 1
        largest = tuple(max(axis) for axis in zip(*shapes, strict=True))
        profiles[one.name] = ShapeProfile(tuple(smallest), seen[one.name].most_common(1)[0][0], largest)
    return profiles
