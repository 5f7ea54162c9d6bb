"""The shapes that all tensors of a model have for given shapes of its inputs, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from trt_ptq.analysis.node_evaluation import evaluate_node
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Array

Shape = tuple[int, ...]
_SMALL = 4096  # elements: what is computed on shapes is never larger, and weights mostly are


def infer_shapes(model: Model, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes by tensor of the main graph; without those that depend on values or come out of custom ops.

    `inputs` must give the shape of each input that the model leaves open; open first axes are taken as 1 where an
    input is not named. ONNX's own inference, node by node, with the values that are computed from shapes: Shape,
    Gather, Concat, Reshape and the like are followed through.

    Raises:
        UsageError: an input has an open axis beyond the first and no shape, or one that does not fit.
    """
    types = {one.name: _tensor_type(one.dtype, _input_shape(model, one.name, inputs)) for one in model.inputs}
    values: dict[str, Array] = {}
    for tensor in model.proto.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if prod(tensor.dims) <= _SMALL:
            values[tensor.name] = numpy_helper.to_array(tensor, str(model.external.folder))
    for node in model.proto.graph.node:
        types.update(_output_types(node, types, values, model))
        values.update(_output_values(node, types, values, model.opset))
    return {name: shape for name, shape in ((name, _known(one)) for name, one in types.items()) if shape is not None}


def _input_shape(model: Model, name: str, given: Mapping[str, Shape]) -> Shape:
    spec = next(one for one in model.inputs if one.name == name)
    if name in given:
        shape = given[name]
        if spec.shape is not None and (
            len(shape) != len(spec.shape)
            or any(isinstance(axis, int) and axis != size for axis, size in zip(spec.shape, shape, strict=True))
        ):
            raise UsageError(f"shape {'x'.join(map(str, shape))} does not fit the model's {spec}")
        return shape
    if spec.shape is None or any(isinstance(axis, str) for axis in spec.shape[1:]):
        raise UsageError(f"give the shape of input {spec}: the model leaves it open")
    return tuple(axis if isinstance(axis, int) else 1 for axis in spec.shape)


def _tensor_type(dtype: np.dtype[np.generic], shape: Shape) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtype), shape)


def _output_types(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], values: Mapping[str, Array], model: Model
) -> dict[str, onnx.TypeProto]:
    """Types of the node's outputs, as far as ONNX can tell; none for a custom op or one with an unknown input."""
    inputs = {name: types[name] for name in node.input if name in types}
    if len(inputs) < len({name for name in node.input if name}) or not defs.has(node.op_type, node.domain):
        return {}
    version = model.opset if node.domain in ("", "ai.onnx") else 1
    schema = defs.get_schema(node.op_type, version, node.domain)
    data = {name: numpy_helper.from_array(values[name]) for name in node.input if name in values}
    try:
        found = shape_inference.infer_node_outputs(schema, node, inputs, data, opset_imports=model.proto.opset_import)
    except (shape_inference.InferenceError, RuntimeError, ValueError):  # in bodies, and where types do not suffice
        return {}
    return {name: one for name, one in found.items() if one.HasField("tensor_type")}


def _output_values(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], values: Mapping[str, Array], opset: int
) -> dict[str, Array]:
    """Values of the node's outputs, where they follow from shapes and constants and are small."""
    sizes = [_known(types[name]) for name in node.output if name in types]
    if len(sizes) < len(node.output) or any(one is None or prod(one) > _SMALL for one in sizes):
        return {}
    if node.op_type == "Shape":
        shape = _known(types.get(node.input[0]))
        ends = {one.name: one.i for one in node.attribute}
        part = slice(ends.get("start"), ends.get("end"))
        return {} if shape is None else {node.output[0]: np.array(shape[part], np.int64)}
    if not all(name in values for name in node.input if name):
        return {}
    return evaluate_node(node, values, opset) or {}


def _known(one: onnx.TypeProto | None) -> Shape | None:
    """The shape when all of it is known."""
    if one is None or not one.tensor_type.HasField("shape"):
        return None
    dims = one.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None
