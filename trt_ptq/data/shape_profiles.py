"""Shape profiles: from the data, where the user gives none, and checked against the model where the user does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from trt_ptq.errors import UsageError
from trt_ptq.types import Batch, BatchSource, ShapeProfile, TensorSpec

Shapes = Mapping[str, Counter[tuple[int, ...]]]


class ShapeObserver:
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
        if one.shape is None or not one.is_dynamic:
            continue
        shapes = list(seen[one.name])
        smallest = [min(axis) for axis in zip(*shapes, strict=True)]
        if isinstance(one.shape[0], str):
            smallest[0] = 1
        largest = tuple(max(axis) for axis in zip(*shapes, strict=True))
        profiles[one.name] = ShapeProfile(tuple(smallest), seen[one.name].most_common(1)[0][0], largest)
    return profiles


def check_profiles(profiles: Mapping[str, ShapeProfile], inputs: tuple[TensorSpec, ...]) -> None:
    """Compare profiles with the model's inputs.

    Raises:
        UsageError: an unknown input, another rank, a number where the model has another one, or profiles for some
            inputs with open dimensions and not for all.
    """
    by_name = {one.name: one for one in inputs}
    for name, profile in profiles.items():
        if name not in by_name:
            raise UsageError(f"--shape names unknown input {name!r}: the model has {', '.join(by_name)}")
        shape = by_name[name].shape
        if shape is None:
            continue
        if len(shape) != len(profile.minimum) or any(
            isinstance(axis, int) and not low == high == axis
            for axis, low, high in zip(shape, profile.minimum, profile.maximum, strict=True)
        ):
            raise UsageError(f"--shape {name}={profile} does not fit the model's {by_name[name]}")
    for one in inputs:
        if profiles and one.is_dynamic and one.name not in profiles:
            raise UsageError(f"--shape is missing for {one}, whose size is open too: give it for all such inputs")
