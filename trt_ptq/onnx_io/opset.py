"""The opset of a model, and converting a model to a newer one in memory without copying its weights."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import shape_inference

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.domains import ONNX_DOMAINS, convert_version

_SMALL_BYTES = 1024  # axes, shapes and the like, whose values the converter may have to read
_IR_VERSION = {19: 9}  # the first IR version that may import the opset


def onnx_opset(proto: onnx.ModelProto) -> int:
    """The version of the default operator set that `proto` imports."""
    return int(next(entry.version for entry in proto.opset_import if entry.domain in ONNX_DOMAINS))


def raise_opset(model: ir.Model, opset: int) -> ir.Model:
    """Convert `model` to `opset`, unless its opset is as new already.

    The weights are detached while ONNX's converter runs, so that they are not loaded and do not count towards
    protobuf's limit of 2 GB.

    Args:
        model: The model; do not use it afterwards.
        opset: The opset to convert to.

    Raises:
        ModelError: ONNX's converter fails.
    """
    old = model.graph.opset_imports[""]
    if old >= opset:
        return model
    weights: dict[str, ir.TensorProtocol] = {}
    for name, value in list(model.graph.initializers.items()):
        assert value.const_value is not None
        if value.const_value.nbytes > _SMALL_BYTES:
            weights[name] = value.const_value
            value.const_value = None
            del model.graph.initializers[name]
            model.graph.inputs.append(value)
        elif isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=name)
    try:
        proto = convert_version(ir.to_proto(model), opset)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"the model cannot be converted from opset {old} to {opset} ({reason})") from error
    proto.ir_version = max(proto.ir_version, _IR_VERSION[opset])
    converted = ir.from_proto(shape_inference.infer_shapes(proto))
    for value in [value for value in converted.graph.inputs if value.name in weights]:
        converted.graph.inputs.remove(value)
        value.const_value = weights[str(value.name)]
        converted.graph.register_initializer(value)
    return converted
