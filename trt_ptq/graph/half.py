"""The float16 baseline of a float model."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from trt_ptq.calibrators.errors import ModelError
from trt_ptq.graph.model import Model


def to_float16(model: Model) -> ir.Model:
    """The model with float16 weights and computation; inputs and outputs keep their types.

    ONNX Runtime's own converter; values beyond float16's range are clamped by it.

    Raises:
        ModelError: the converter cannot handle the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = ir.to_proto(ir.external_data.load_to_model(model.to_ir()))
    try:
        converted: onnx.ModelProto = convert_float_to_float16(proto, keep_io_types=True)
    except Exception as error:  # the converter raises bare errors of many kinds
        raise ModelError(f"{model.path}: no float16 version can be made of it: {error}") from error
    return ir.from_proto(converted)
