"""Convert models of old opsets in a way that keeps what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.domains import convert_version
from trt_ptq.onnx_io.external_data import external_initializers
from trt_ptq.onnx_io.opset import onnx_opset

_COORDINATE_MODES_SINCE = 11  # before, Resize and Upsample had one rule, which the converter does not write down


def raise_old_opset(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    """Convert `proto`, whose opset is older, to `opset`; `path` is for messages.

    Raises:
        ModelError: ONNX's converter fails.
    """
    external = external_initializers(proto)
    try:
        converted = convert_version(proto, opset)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"{path}: cannot be converted from opset {onnx_opset(proto)} to {opset} ({reason}): "
            f"export it with opset {opset} or newer"
        ) from error
    for tensor in converted.graph.initializer:
        if tensor.name in external:
            tensor.CopyFrom(external[tensor.name])  # the converter of onnx <= 1.18 drops the external location
    if onnx_opset(proto) < _COORDINATE_MODES_SINCE:
        _keep_resize_rule(converted)
    return converted


def _keep_resize_rule(proto: onnx.ModelProto) -> None:
    """Give each Resize the rule of opsets 7 to 10: x_original = x_resized / scale, in place.

    Nearest neighbors are rounded down, and up where the tensor shrinks.
    Source: ONNX Runtime, core/providers/cpu/tensor/upsamplebase.h.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in proto.graph.node
        if node.op_type == "Constant" and node.attribute[0].HasField("t")
    }
    for node in proto.graph.node:
        if node.op_type != "Resize" or node.domain:
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        attributes["coordinate_transformation_mode"] = helper.make_attribute(
            "coordinate_transformation_mode", "asymmetric"
        )
        scales = constants.get(node.input[2]) if len(node.input) > 2 else None
        shrinks = scales is not None and bool(np.all(numpy_helper.to_array(scales) <= 1))
        attributes["nearest_mode"] = helper.make_attribute("nearest_mode", "ceil" if shrinks else "floor")
        del node.attribute[:]
        node.attribute.extend(attributes.values())
