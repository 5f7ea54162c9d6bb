"""What TensorRT reads at the device pointers: data type and shape of each network input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_ptq.errors import UsageError
from trt_ptq.types import Feeds

# During calibration TensorRT reads every floating-point input as float32, whatever type the engine will take.
_CALIBRATION_DTYPES = {
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
    """Data type and shape of one input in a full calibration batch."""

    dtype: npt.DTypeLike
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{np.dtype(self.dtype)} {list(self.shape)}"


def network_inputs(network: Any, profile: Any = None) -> dict[str, InputSpec]:
    """Inputs of a `trt.INetworkDefinition` by name, in the shape of calibration.

    This is the input's own shape, or if it is dynamic, OPT of `profile`, the calibration profile.

    Raises:
        UsageError: a dynamic input without a profile, or an input of a type that cannot be calibrated.
    """
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    return {tensor.name: InputSpec(_dtype(tensor), _shape(tensor, profile)) for tensor in tensors}


def tensor_names(network: Any) -> set[str]:
    """Names of the inputs and of all layer outputs of a `trt.INetworkDefinition`."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [layer.get_output(index) for layer in layers for index in range(layer.num_outputs)]
    return {tensor.name for tensor in tensors if tensor is not None}


def specs_of(feeds: Feeds) -> Mapping[str, InputSpec]:
    """Data types and shapes of `feeds`."""
    return {name: InputSpec(array.dtype, array.shape) for name, array in feeds.items()}


def _dtype(tensor: Any) -> npt.DTypeLike:
    if tensor.dtype.name not in _CALIBRATION_DTYPES:
        raise UsageError(f"input {tensor.name!r} is {tensor.dtype.name}: TensorRT cannot calibrate with that type")
    return _CALIBRATION_DTYPES[tensor.dtype.name]


def _shape(tensor: Any, profile: Any) -> tuple[int, ...]:
    shape = tuple(int(size) for size in tensor.shape)
    if -1 not in shape:
        return shape
    shapes = profile.get_shape(tensor.name) if profile is not None else []
    if not shapes:
        raise UsageError(
            f"input {tensor.name!r} has dynamic dimensions {list(shape)}: pass as `profile` the profile that "
            "config.set_calibration_profile got, with shapes for this input"
        )
    return tuple(int(size) for size in shapes[1])
