"""Infer the shapes of all tensors of a model for given input shapes, without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from trt_ptq.analysis.node_evaluation import evaluate_node
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.domains import ONNX_DOMAINS, runnable_part
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.loading.ort_types import types_of_onnx_runtime
from trt_ptq.types import Array, TensorSpec

Shape = tuple[int, ...]
_MAX_ELEMENTS = 4096  # of tensors whose values are tracked: shape computations are smaller, most weights are larger


def infer_shapes(model: Model, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """Infer the shapes of the tensors of the main graph.

    Runs ONNX's shape inference node by node and propagates the values of shape computations (Shape, Gather, Concat,
    Reshape and the like).

    Args:
        model: The model.
        inputs: Shapes of the inputs with dynamic dimensions. May lack inputs whose only dynamic dimension is the
            first, the batch size; it is 1 then.

    Returns:
        Shapes by tensor name, without those that depend on input values or are the result of custom ops.

    Raises:
        UsageError: The shape of an input is missing, or does not match the model.
    """
    types = {spec.name: _tensor_type(spec.dtype, _input_shape(spec, inputs)) for spec in model.inputs}
    values: dict[str, Array] = {}
    for tensor in model.proto.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if prod(tensor.dims) <= _MAX_ELEMENTS:
            values[tensor.name] = numpy_helper.to_array(tensor, str(model.external.folder))
    for node in model.proto.graph.node:
        types.update(_output_types(node, types, values, model))
        values.update(_output_values(node, types, values, model.opset))
    unknown = [name for node in model.proto.graph.node for name in node.output if name and name not in types]
    if unknown:
        types |= _types_of_onnx_runtime(model, types, unknown)
    shapes = {name: _static_shape(tensor_type) for name, tensor_type in types.items()}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _types_of_onnx_runtime(
    model: Model, types: Mapping[str, onnx.TypeProto], names: Sequence[str]
) -> dict[str, onnx.TypeProto]:
    """Types that ONNX Runtime infers of the tensors `names`, with the input shapes in `types`."""
    proto = runnable_part(model.proto, large_weights=False)
    for value in proto.graph.input:
        value.type.CopyFrom(types[value.name])
    return {value.name: value.type for value in types_of_onnx_runtime(proto, names, model.external)}


def _input_shape(spec: TensorSpec, shapes: Mapping[str, Shape]) -> Shape:
    if spec.name in shapes:
        shape = shapes[spec.name]
        if len(shape) != len(spec.shape) or any(
            isinstance(axis, int) and axis != size for axis, size in zip(spec.shape, shape, strict=True)
        ):
            raise UsageError(f"shape {'x'.join(map(str, shape))} does not match the model's input {spec}")
        return shape
    if any(isinstance(axis, str) for axis in spec.shape[1:]):
        raise UsageError(f"input {spec} has dynamic dimensions: pass its shape")
    return tuple(axis if isinstance(axis, int) else 1 for axis in spec.shape)


def _tensor_type(dtype: np.dtype[np.generic], shape: Shape) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtype), shape)


def _output_types(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], values: Mapping[str, Array], model: Model
) -> dict[str, onnx.TypeProto]:
    """Types of the node's outputs, as far as ONNX infers them; empty for a custom op or an unknown input."""
    inputs = {name: types[name] for name in node.input if name in types}
    if len(inputs) < len({name for name in node.input if name}) or not defs.has(node.op_type, node.domain):
        return {}
    version = model.opset if node.domain in ONNX_DOMAINS else 1
    schema = defs.get_schema(node.op_type, version, node.domain)
    data = {name: numpy_helper.from_array(values[name]) for name in node.input if name in values}
    try:
        outputs = shape_inference.infer_node_outputs(schema, node, inputs, data, opset_imports=model.proto.opset_import)
    except (shape_inference.InferenceError, RuntimeError, ValueError):  # nodes with bodies, or with unknown types
        return {}
    return {name: tensor_type for name, tensor_type in outputs.items() if tensor_type.HasField("tensor_type")}


def _output_values(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], values: Mapping[str, Array], opset: int
) -> dict[str, Array]:
    """Values of the node's outputs, if they are small and follow from shapes and constants."""
    shapes = [_static_shape(types[name]) for name in node.output if name in types]
    if len(shapes) < len(node.output) or any(shape is None or prod(shape) > _MAX_ELEMENTS for shape in shapes):
        return {}
    if node.op_type == "Shape":
        shape = _static_shape(types.get(node.input[0]))
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        axes = slice(attributes.get("start"), attributes.get("end"))
        return {} if shape is None else {node.output[0]: np.array(shape[axes], np.int64)}
    if not all(name in values for name in node.input if name):
        return {}
    return evaluate_node(node, values, opset) or {}


def _static_shape(tensor_type: onnx.TypeProto | None) -> Shape | None:
    """The shape, if all dimensions are known."""
    if tensor_type is None or not tensor_type.tensor_type.HasField("shape"):
        return None
    dims = tensor_type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None
