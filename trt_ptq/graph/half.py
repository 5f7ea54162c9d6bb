"""The float16 baseline of a float model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from trt_ptq.calibrators.errors import ModelError
from trt_ptq.graph.model import Model

FLOAT16_MAX = float(np.finfo(np.float16).max)


def to_float16(model: Model) -> ir.Model:
    """The model with float16 weights and computation; inputs and outputs keep their types.

    ONNX Runtime's own converter. Nodes with a constant beyond float16's range (the running variance of a
    BatchNormalization, say) stay float32, since the converter would clamp the constant and the result be wrong.

    Raises:
        ModelError: the converter cannot handle the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    full = ir.external_data.load_to_model(model.to_ir())
    for index, node in enumerate(full.graph.all_nodes()):
        node.name = f"{node.op_type}_{index}"  # unique, as the list of exceptions needs
    kept = [node.name for node in full.graph if any(_beyond_range(value) for value in node.inputs)]
    try:
        converted: onnx.ModelProto = convert_float_to_float16(
            ir.to_proto(full), keep_io_types=True, node_block_list=kept
        )
    except Exception as error:  # the converter raises bare errors of many kinds
        raise ModelError(f"{model.path}: no float16 version can be made of it: {error}") from error
    half = ir.from_proto(converted)
    half.graph.sort()  # the converter puts its casts at the end
    return half


def _beyond_range(value: ir.Value | None) -> bool:
    if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
        return False
    array = value.const_value.numpy()
    return bool(array.size) and float(np.abs(array).max()) > FLOAT16_MAX
