"""Raising the opset of a model in memory, without moving its weights."""

from __future__ import annotations

import onnx_ir as ir
from onnx import shape_inference, version_converter

from trt_ptq.errors import ModelError

_SMALL = 1024  # bytes: axes, shapes and the like, whose values the converter may have to read
_IR_VERSION = {19: 9}  # the first IR version that may import the opset


def raise_opset(model: ir.Model, opset: int) -> ir.Model:
    """The same computation in `opset`; `model` is used up. A model of that opset or a newer one comes back as it is.

    Weights are left out while ONNX's converter works, so that they are neither loaded nor counted in its 2 GB.

    Raises:
        ModelError: the converter cannot raise it.
    """
    old = model.graph.opset_imports[""]
    if old >= opset:
        return model
    weights: dict[str, ir.TensorProtocol] = {}
    for name, value in list(model.graph.initializers.items()):
        assert value.const_value is not None
        if value.const_value.nbytes > _SMALL:
            weights[name] = value.const_value
            value.const_value = None
            del model.graph.initializers[name]
            model.graph.inputs.append(value)
        elif isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=name)
    try:
        proto = version_converter.convert_version(ir.to_proto(model), opset)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"the model cannot be raised from opset {old} to {opset} ({reason})") from error
    proto.ir_version = max(proto.ir_version, _IR_VERSION[opset])
    raised = ir.from_proto(shape_inference.infer_shapes(proto))
    for value in [one for one in raised.graph.inputs if one.name in weights]:
        raised.graph.inputs.remove(value)
        value.const_value = weights[str(value.name)]
        raised.graph.register_initializer(value)
    return raised
