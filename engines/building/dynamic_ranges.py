"""Matches a calibration table with a TensorRT network, and sets its ranges on the tensors."""

from __future__ import annotations

from typing import Any

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import EngineError

_SHOWN = 3


def tensors_without_range(trt: Any, network: Any, table: CalibrationTable) -> tuple[str, ...]:
    """Names of the network's float tensors without a range in `table`; constants need none.

    Raises:
        EngineError: the table has no range for any of them.
    """
    names = [tensor.name for tensor in _activations(trt, network)]
    missing = tuple(name for name in names if name not in table.amax)
    if names and len(missing) == len(names):
        raise EngineError(
            f"the table has no range for any tensor of the model: the table names {_some(list(table.amax))}, "
            f"the model {_some(names)}"
        )
    return missing


def set_dynamic_ranges(network: Any, table: CalibrationTable) -> None:
    """Set the range [-amax, amax] on every tensor of the network that is in the table."""
    for tensor in _tensors(network):
        if tensor.name in table.amax:
            tensor.set_dynamic_range(-table.amax[tensor.name], table.amax[tensor.name])


def _tensors(network: Any) -> list[Any]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return inputs + [tensor for layer in _layers(network) for tensor in _outputs(layer)]


def _activations(trt: Any, network: Any) -> list[Any]:
    constants = {
        tensor.name for layer in _layers(network) if layer.type == trt.LayerType.CONSTANT for tensor in _outputs(layer)
    }
    return [
        tensor
        for tensor in _tensors(network)
        if tensor.dtype in (trt.float32, trt.float16) and tensor.name not in constants and not tensor.is_shape_tensor
    ]


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(index) for index in range(network.num_layers)]


def _outputs(layer: Any) -> list[Any]:
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    return [tensor for tensor in outputs if tensor is not None]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
