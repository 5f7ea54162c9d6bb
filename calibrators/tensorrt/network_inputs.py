"""What TensorRT reads at the pointers that it is given: data type and shape of each input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_ptq.errors import UsageError
from trt_ptq.types import Feeds

# TensorRT reads every floating-point input as float32 while it calibrates, whatever type the engine will take.
_CALIBRATED_AS = {
    "FLOAT": "float32",
    "HALF": "float32",
    "BF16": "float32",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
}


@dataclass(frozen=True)
class InputSpec:
    """One input as a full calibration batch has it."""

    dtype: npt.DTypeLike
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{np.dtype(self.dtype)} {list(self.shape)}"


def network_inputs(network: Any, profile: Any = None) -> dict[str, InputSpec]:
    """Inputs of a `trt.INetworkDefinition` by name, at the shape that calibration runs at.

    That is the input's own shape, or where it is open, OPT of `profile`, the calibration profile.

    Raises:
        UsageError: an open input without a profile, or of a type that cannot be fed.
    """
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    return {tensor.name: InputSpec(_dtype(tensor), _shape(tensor, profile)) for tensor in tensors}


def tensor_names(network: Any) -> set[str]:
    """Names of the inputs of a `trt.INetworkDefinition` and of all that its layers make."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [layer.get_output(number) for layer in layers for number in range(layer.num_outputs)]
    return {tensor.name for tensor in tensors if tensor is not None}


def specs_of(feeds: Feeds) -> Mapping[str, InputSpec]:
    """The inputs as `feeds` has them."""
    return {name: InputSpec(array.dtype, array.shape) for name, array in feeds.items()}


def _dtype(tensor: Any) -> npt.DTypeLike:
    if tensor.dtype.name not in _CALIBRATED_AS:
        raise UsageError(f"input {tensor.name!r} is {tensor.dtype.name}: TensorRT cannot calibrate with that type")
    return _CALIBRATED_AS[tensor.dtype.name]


def _shape(tensor: Any, profile: Any) -> tuple[int, ...]:
    shape = tuple(int(size) for size in tensor.shape)
    if -1 not in shape:
        return shape
    shapes = profile.get_shape(tensor.name) if profile is not None else []
    if not shapes:
        raise UsageError(
            f"input {tensor.name!r} has open dimensions {list(shape)}: pass the profile that "
            "config.set_calibration_profile got, with shapes for this input"
        )
    return tuple(int(size) for size in shapes[1])
