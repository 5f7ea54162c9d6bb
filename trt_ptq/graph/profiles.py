"""Whether shape profiles fit the model, found out before any work."""

from __future__ import annotations

from collections.abc import Mapping

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.engines.spec import ShapeProfile
from trt_ptq.graph.model import Model


def check_profiles(profiles: Mapping[str, ShapeProfile], model: Model) -> None:
    """Compare profiles with the model's inputs.

    Raises:
        UsageError: an unknown input, another rank, a number where the model has another one, or profiles for some
            inputs with open dimensions and not for all.
    """
    inputs = {one.name: one for one in model.inputs}
    for name, profile in profiles.items():
        if name not in inputs:
            raise UsageError(f"--shape names unknown input {name!r}: the model has {', '.join(inputs)}")
        shape = inputs[name].shape
        if shape is None:
            continue
        if len(shape) != len(profile.minimum) or any(
            isinstance(axis, int) and not low == high == axis
            for axis, low, high in zip(shape, profile.minimum, profile.maximum, strict=True)
        ):
            raise UsageError(f"--shape {name}={profile} does not fit the model's {inputs[name]}")
    for one in model.inputs:
        if profiles and one.is_open and one.name not in profiles:
            raise UsageError(f"--shape is missing for {one}, whose size is open too: give it for all such inputs")
