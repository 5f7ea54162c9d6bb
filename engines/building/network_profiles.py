"""Gives a network its optimization profile, and says which dimensions still need one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError
from trt_ptq.types import ShapeProfile


def apply_profiles(builder: Any, network: Any, config: Any, spec: EngineSpec) -> Any | None:
    """Fix the inputs' shapes and add the profile of `spec`; returns it, or None if every shape is fixed already.

    Raises:
        EngineError: an unknown input, a profile that does not fit, or open dimensions without one.
    """
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    unknown = sorted(spec.profiles.keys() - inputs.keys())
    if unknown:
        raise EngineError(f"--shape names unknown inputs {', '.join(unknown)}: the model has {', '.join(inputs)}")
    _check_dimensions_known(spec.onnx, [tensor for name, tensor in inputs.items() if name not in spec.profiles])
    if not spec.profiles:
        return None
    profile = builder.create_optimization_profile()
    for name, shapes in spec.profiles.items():
        tensor = inputs[name]
        _check_profile(tensor, shapes)
        tensor.shape = shapes.fixed  # an axis that is equal in all three is no longer open
        profile.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
    config.add_optimization_profile(profile)
    return profile


def _check_dimensions_known(onnx: Path, inputs: list[Any]) -> None:
    told = [_open_dimensions(tensor) for tensor in inputs if -1 in tuple(tensor.shape)]
    if told:
        raise EngineError(f"{onnx}: " + "; ".join(told))


def _open_dimensions(tensor: Any) -> str:
    """What is open in an input, and how to close it."""
    shape = tuple(tensor.shape)
    axes = ", ".join(
        f"axis {axis} ({tensor.get_dimension_name(axis) or 'unnamed'})" for axis, size in enumerate(shape) if size == -1
    )

    def example(size: int) -> str:
        return "x".join(str(size if axis == -1 else axis) for axis in shape)

    return (
        f"input {tensor.name!r} has open dimensions {axes}: give their range with "
        f"--shape {tensor.name}=MIN:OPT:MAX, in the form {tensor.name}={example(1)}:{example(8)}:{example(16)} "
        "(an axis that must be fixed has the same number in all three)"
    )


def _check_profile(tensor: Any, shapes: ShapeProfile) -> None:
    have = tuple(tensor.shape)
    if len(have) != len(shapes.minimum) or any(
        size not in (-1, low) or (size != -1 and low != high)
        for size, low, high in zip(have, shapes.minimum, shapes.maximum, strict=True)
    ):
        told = "x".join("?" if size == -1 else str(size) for size in have)
        raise EngineError(f"--shape {tensor.name}={shapes}: does not fit the model's {told}")
