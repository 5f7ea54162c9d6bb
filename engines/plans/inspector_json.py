"""Reads the JSON of `IEngineInspector.get_engine_information`, in the forms of TensorRT 10, 11 and TensorRT-RTX.

TensorRT 10 has "Bindings" (names of inputs and outputs) and "Format/Datatype"; TensorRT 11 has "I/O Tensors" (objects),
and the format apart from the type (NVIDIA, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x").
"""

from __future__ import annotations

import json
import math
from typing import Any

from trt_ptq.engines.plans.datatypes import parse_dtype
from trt_ptq.engines.plans.kernel import Kernel, KernelTensor
from trt_ptq.engines.plans.kernel_macs import count_macs
from trt_ptq.engines.plans.rtx_log import ParsedEngine, describe_gaps, parse_nodes
from trt_ptq.errors import EngineError

_DTYPE_KEYS = ("Datatype", "DataType", "Format/Datatype")


def parse_inspection(text: str, where: str) -> ParsedEngine:
    """Parse the inspector's JSON.

    Args:
        text: the JSON.
        where: name of the engine, for messages.

    Raises:
        EngineError: not the inspector's JSON, or an engine that was built with only the names of its layers.
    """
    try:
        document = json.loads(text)
        layers = document["Layers"]
        if layers and all(isinstance(layer, str) for layer in layers):
            raise EngineError(
                f"{where}: this engine contains only the names of its {len(layers)} layers; build it with trt-ptq, or "
                "with profiling verbosity DETAILED"
            )
        kernels = [_kernel(layer) for layer in layers]
        return ParsedEngine(tuple(kernels), _shapes(document, kernels), tuple(describe_gaps(kernels)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{where}: unexpected output of the engine inspector: {error!r}") from error


def _kernel(layer: dict[str, Any]) -> Kernel:
    name, kind = str(layer["Name"]), str(layer.get("LayerType", ""))
    inputs, outputs = (tuple(_tensor(tensor) for tensor in layer[key]) for key in ("Inputs", "Outputs"))
    constants = [_tensor(tensor) for tensor in layer.get("Constants", ())]
    for key in ("Weights", "Bias"):
        weights = layer.get(key)
        if isinstance(weights, dict) and weights.get("Count"):
            dtype = parse_dtype(str(weights.get("Type", "")))
            constants.append(KernelTensor.of(f"{name}.{key.lower()}", (int(weights["Count"]),), dtype))
    return Kernel(
        name=name,
        kind=kind,
        inputs=inputs,
        constants=tuple(constants),
        outputs=outputs,
        nodes=parse_nodes(str(layer.get("Metadata", ""))),
        macs=_macs(layer, name, kind, inputs, tuple(constants), outputs),
        tactic=str(layer.get("TacticName", "")),
    )


def _macs(
    layer: dict[str, Any],
    name: str,
    kind: str,
    inputs: tuple[KernelTensor, ...],
    constants: tuple[KernelTensor, ...],
    outputs: tuple[KernelTensor, ...],
) -> int | None:
    """A convolution has only the number of its weights, in "Weights", and of its filters, in "OutMaps"."""
    weights, filters = layer.get("Weights"), layer.get("OutMaps")
    if layer.get("ParameterType") == "Convolution" and isinstance(weights, dict) and outputs:
        filters = filters or (outputs[0].shape[1] if len(outputs[0].shape) > 1 else 0)
        if not filters or outputs[0].size is None or int(weights["Count"]) % int(filters):
            return None
        return outputs[0].size * (int(weights["Count"]) // int(filters))
    return count_macs(name, kind, inputs, constants, outputs)


def _tensor(tensor: dict[str, Any]) -> KernelTensor:
    key = next((key for key in _DTYPE_KEYS if key in tensor), _DTYPE_KEYS[-1])
    shape = tuple(int(size) for size in tensor["Dimensions"])
    return KernelTensor.of(str(tensor["Name"]), shape, parse_dtype(str(tensor[key])))


def _shapes(document: dict[str, Any], kernels: list[Kernel]) -> dict[str, tuple[int, ...]]:
    """Shapes of the engine's inputs; TensorRT 10 names inputs and outputs alike, without shapes."""
    if "I/O Tensors" in document:
        inputs = [tensor for tensor in document["I/O Tensors"] if str(tensor.get("IOMode")).lower() == "input"]
        return {str(tensor["Name"]): tuple(int(size) for size in tensor["Dimensions"]) for tensor in inputs}
    bindings = set(map(str, document.get("Bindings", ())))
    read = {tensor.name: tensor.shape for kernel in kernels for tensor in kernel.inputs if tensor.name in bindings}
    written = {tensor.name for kernel in kernels for tensor in kernel.outputs}
    return {name: shape for name, shape in read.items() if name not in written and math.prod(shape) != 0}
