"""Shape profiles: derived from the data, or given by the user and checked against the model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from trt_ptq.errors import UsageError
from trt_ptq.types import Batch, ShapeProfile, TensorSpec

_DEFAULT_BATCH = 8
_NUMBER = re.compile(r"\d+")

Shapes = Mapping[str, Counter[tuple[int, ...]]]


class ShapeObserver:
    """Counts the shapes of each input."""

    def __init__(self) -> None:
        self.seen: dict[str, Counter[tuple[int, ...]]] = {}

    def observe(self, batch: Batch) -> None:
        """Count the shapes of `batch`."""
        for name, array in batch.feeds.items():
            self.seen.setdefault(name, Counter())[np.shape(array)] += 1


def profiles_from_shapes(seen: Shapes, inputs: tuple[TensorSpec, ...]) -> dict[str, ShapeProfile]:
    """A profile for each input with dynamic dimensions: minimum and maximum of the observed sizes on each axis, and the
    most frequent shape that is not empty as the optimum. A dynamic first axis is the batch, whose minimum is 1."""
    profiles = {}
    for spec in inputs:
        if not spec.is_dynamic:
            continue
        shapes = list(seen[spec.name])
        smallest = [min(axis) for axis in zip(*shapes, strict=True)]
        if isinstance(spec.shape[0], str):
            smallest[0] = min(smallest[0], 1)
        largest = tuple(max(axis) for axis in zip(*shapes, strict=True))
        frequent = [shape for shape, _ in seen[spec.name].most_common()]
        optimum = next((shape for shape in frequent if 0 not in shape), frequent[0])
        profiles[spec.name] = ShapeProfile(tuple(smallest), optimum, largest)
    return profiles


def limited_axes(profile: ShapeProfile, spec: TensorSpec) -> list[int]:
    """The dynamic axes of an input on which `profile` accepts no more than was observed: all but a batch of varying
    size."""
    return [
        index
        for index, axis in enumerate(spec.shape)
        if isinstance(axis, str) and (index > 0 or profile.maximum[0] == 1)
    ]


def wider_profile(profile: ShapeProfile, spec: TensorSpec) -> ShapeProfile:
    """A default for inputs of other sizes than the observed ones: half to twice on each dynamic axis, which keeps sizes
    divisible by what models usually ask for; for a batch of 1, up to 8."""
    minimum, maximum = list(profile.minimum), list(profile.maximum)
    for index in limited_axes(profile, spec):
        minimum[index] = minimum[index] // 2 or min(minimum[index], 1)
        maximum[index] = 2 * maximum[index] if index else _DEFAULT_BATCH
    return ShapeProfile(tuple(minimum), profile.optimum, tuple(maximum))


def match_profiles(profiles: Mapping[str, ShapeProfile], inputs: Sequence[TensorSpec]) -> dict[str, ShapeProfile]:
    """The profile of each input; `profiles` may name several inputs by a pattern, such as "past_key_values.*.key".

    Raises:
        UsageError: an unknown input, another rank, another size on a fixed axis, or a profile is missing for an input
            with dynamic dimensions.
    """
    by_name = {spec.name: spec for spec in inputs}
    matched = expand_patterns(profiles, list(by_name))
    for name, profile in matched.items():
        if name not in by_name:
            raise UsageError(f"`shapes` names unknown input {name!r}: the model has {', '.join(by_name)}")
        shape = by_name[name].shape
        if len(shape) != len(profile.minimum) or any(
            isinstance(axis, int) and not low == high == axis
            for axis, low, high in zip(shape, profile.minimum, profile.maximum, strict=True)
        ):
            raise UsageError(f"`shapes`: {name}={profile} does not fit the model's {by_name[name]}")
    for spec in inputs:
        if matched and spec.is_dynamic and spec.name not in matched:
            raise UsageError(f"`shapes` is missing for {spec}, which is dynamic too: give it for all dynamic inputs")
    return matched


def expand_patterns(profiles: Mapping[str, ShapeProfile], names: Sequence[str]) -> dict[str, ShapeProfile]:
    """`profiles` with each pattern replaced by the `names` that it matches; those that are named themselves stay.

    Raises:
        UsageError: two patterns match the same name and give it different profiles.
    """
    expanded: dict[str, ShapeProfile] = {}
    for pattern, profile in profiles.items():
        matching = [name for name in names if name not in profiles and fnmatchcase(name, pattern)]
        for name in matching:
            if expanded.get(name, profile) != profile:
                raise UsageError(f"`shapes` gives {name!r} both {expanded[name]} and, by {pattern!r}, {profile}")
        expanded |= dict.fromkeys(matching, profile) if matching and pattern not in names else {pattern: profile}
    return expanded


def shape_options(profiles: Mapping[str, ShapeProfile]) -> list[str]:
    """Texts NAME=MIN:OPT:MAX that name all `profiles`, numbered inputs with one profile together by a pattern."""
    families: dict[str, list[str]] = {}
    for name in profiles:
        families.setdefault(_NUMBER.sub("*", name), []).append(name)
    options = []
    for pattern, members in families.items():
        alike = len({profiles[name] for name in members}) == 1
        is_exact = set(members) == {name for name in profiles if fnmatchcase(name, pattern)}
        if len(members) > 1 and alike and is_exact:
            options.append(f"{pattern}={profiles[members[0]]}")
        else:
            options += [f"{name}={profiles[name]}" for name in members]
    return options
