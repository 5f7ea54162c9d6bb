"""The layers of a parsed network that the model asks to run in INT8."""

from __future__ import annotations

from typing import Any

from trt_ptq.engines.library import TensorRTLibrary
from trt_ptq.engines.plans.rtx_log import parse_nodes

_WITH_MACS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_TRANSPARENT = ("CAST", "SHUFFLE", "IDENTITY")  # may stand between a DequantizeLinear and its consumer


def quantized_layers(library: TensorRTLibrary, network: Any) -> tuple[str, ...]:
    """The ONNX nodes of convolutions and matrix products whose operands all come from a DequantizeLinear."""
    types = library.module.LayerType
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    transparent = {getattr(types, name) for name in _TRANSPARENT if hasattr(types, name)}

    def dequantized(tensor: Any) -> bool:
        layer = producers.get(tensor.name)
        while layer is not None and layer.type in transparent and layer.get_input(0) is not None:
            layer = producers.get(layer.get_input(0).name)
        return layer is not None and layer.type == types.DEQUANTIZE

    found: list[str] = []
    for layer in layers:
        if layer.type in {getattr(types, name) for name in _WITH_MACS}:
            operands = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
            if len(operands) == 2 and all(operand is not None and dequantized(operand) for operand in operands):
                found.extend(parse_nodes(layer.metadata) or (layer.name,))
    return tuple(dict.fromkeys(found))
