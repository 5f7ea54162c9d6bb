"""Adds the optimization profile to a network, and names the dynamic dimensions that still need one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError
from trt_ptq.types import ShapeProfile


def apply_profiles(builder: Any, network: Any, config: Any, spec: EngineSpec) -> Any | None:
    """Set the shapes of the inputs and add the profile of `spec`.

    Returns:
        The optimization profile, None if every shape is fixed.

    Raises:
        EngineError: an unknown input, a profile that does not fit, or dynamic dimensions without a profile.
    """
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    unknown = sorted(spec.profiles.keys() - inputs.keys())
    outputs = {network.get_output(index).name for index in range(network.num_outputs)}
    if handed_on := [name for name in unknown if name in outputs]:  # the parser renames such an input
        raise EngineError(
            f"{spec.onnx}: input {handed_on[0]!r} is also an output, and tensors of an engine are either: remove that "
            "output, or copy the input to an output of another name with an Identity node"
        )
    if unknown:
        raise EngineError(f"`shapes`: unknown inputs {', '.join(unknown)}; the model has {', '.join(inputs)}")
    _check_dimensions_known(spec.onnx, [tensor for name, tensor in inputs.items() if name not in spec.profiles])
    if not spec.profiles:
        return None
    profile = builder.create_optimization_profile()
    for name, shapes in spec.profiles.items():
        tensor = inputs[name]
        _check_profile(tensor, shapes)
        tensor.shape = shapes.fixed  # an axis that is equal in all three is not dynamic
        profile.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
    config.add_optimization_profile(profile)
    return profile


def _check_dimensions_known(onnx: Path, inputs: list[Any]) -> None:
    problems = [_describe_dynamic(tensor) for tensor in inputs if -1 in tuple(tensor.shape)]
    if problems:
        raise EngineError(f"{onnx}: " + "; ".join(problems))


def _describe_dynamic(tensor: Any) -> str:
    """Names the dynamic dimensions of an input, with an example of a profile."""
    shape = tuple(tensor.shape)
    axes = ", ".join(
        f"axis {axis} ({tensor.get_dimension_name(axis) or 'unnamed'})" for axis, size in enumerate(shape) if size == -1
    )

    def example(size: int) -> str:
        return "x".join(str(size if axis == -1 else axis) for axis in shape)

    return (
        f"input {tensor.name!r} has dynamic dimensions {axes}: give their range with "
        f"`shapes={tensor.name}=MIN:OPT:MAX`, for example {tensor.name}={example(1)}:{example(8)}:{example(16)}, "
        f"or one shape, {tensor.name}={example(8)}, for that alone"
    )


def _check_profile(tensor: Any, profile: ShapeProfile) -> None:
    shape = tuple(tensor.shape)
    if len(shape) != len(profile.minimum) or any(
        size not in (-1, low) or (size != -1 and low != high)
        for size, low, high in zip(shape, profile.minimum, profile.maximum, strict=True)
    ):
        model_shape = "x".join("?" if size == -1 else str(size) for size in shape)
        raise EngineError(f"`shapes={tensor.name}={profile}` does not fit the shape {model_shape} in the model")
