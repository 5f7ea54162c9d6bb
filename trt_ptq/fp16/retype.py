"""Writes float16 into a graph: types of tensors, weights, scales, and the casts where float16 and float32 meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count

import onnx_ir as ir

from trt_ptq.fp16.convertible_io import TYPE_CONVERTING_OPS, ConvertibleIO, is_float32
from trt_ptq.fp16.qdq_scales import float16_holds, rescale
from trt_ptq.onnx_io.lazy_tensor import lazy_cast

_HALF, _FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT


class Retyping:
    """Rewrites one graph: outputs first, then every use of a tensor by what its reader wants."""

    def __init__(self, graph: ir.Graph, turned: Mapping[ir.Node, ConvertibleIO]) -> None:
        self._graph = graph
        self._turned = turned
        self._floats = {value for value in _values(graph) if is_float32(value)}
        self._names = {value.name for value in _values(graph)}
        self._names |= {value.name for node in graph.all_nodes() for value in node.outputs}
        self._other: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        """Rewrite the graph; its nodes have to be sorted afterwards."""
        nodes = list(self._graph)
        for node, convertible in self._turned.items():
            for index in convertible.outputs:
                node.outputs[index].dtype = _HALF
        for node in nodes:
            if node.op_type == "QuantizeLinear":
                self._type_quantizer(node)
            elif node.op_type not in TYPE_CONVERTING_OPS and not self._takes_any(node):
                halved = self._turned.get(node, ConvertibleIO()).inputs
                for index, value in enumerate(node.inputs):
                    if value in self._floats:
                        node.replace_input_with(index, self._as(value, _HALF if index in halved else _FULL))
            self._type_bodies(node)
        self._name_weights()
        for index, value in enumerate(self._graph.outputs):
            if value in self._floats and value.dtype == _HALF:
                name, value.name = value.name, self._free(f"{value.name}.float16")
                output = self._as(value, _FULL)
                output.name = name
                self._graph.outputs[index] = output

    def _takes_any(self, node: ir.Node) -> bool:
        """Whether a node reads one tensor, in whatever type it has (Shape, ArgMax, IsNaN): no cast is worth it."""
        return node in self._turned and len(self._turned[node].inputs) == 1 and not self._turned[node].outputs

    def _type_quantizer(self, node: ir.Node) -> None:
        """The scale of a QuantizeLinear gets the type of its input, or the input that of the scale."""
        data, scale = node.inputs[0], node.inputs[1]
        assert data is not None and scale is not None
        if data.dtype == _HALF:
            if scale.const_value is not None and float16_holds(scale.const_value.numpy()).all():
                node.replace_input_with(1, self._as(scale, _HALF))
            else:
                node.replace_input_with(0, self._as(data, _FULL))

    def _type_bodies(self, node: ir.Node) -> None:
        """Bodies go on reading float32."""
        for body in _bodies(node):
            for inner in body.all_nodes():
                for index, value in enumerate(inner.inputs):
                    if value in self._floats:
                        inner.replace_input_with(index, self._as(value, _FULL))
            for index, value in enumerate(body.outputs):
                if value in self._floats:
                    body.outputs[index] = self._as(value, _FULL)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` itself, or what holds the same in `dtype`: made once for all readers."""
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._other:
            self._other[key] = self._made(value, dtype)
        return self._other[key]

    def _made(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        source = value.producer()
        if value.const_value is not None and source is None:
            return self._constant(value)
        origin = value
        if dtype == _HALF and source is not None and source.op_type == "DequantizeLinear":
            data = self._with_half_scale(source)
            if data:
                inputs = [*data, *source.inputs[2:]]
                return self._node("DequantizeLinear", inputs, value, dtype, source.attributes.values())
        if dtype == _HALF and source is not None and source.op_type == "Cast" and source.inputs[0] is not None:
            origin = source.inputs[0]  # no cast after a cast
        if origin.dtype == dtype:
            return origin
        return self._node("Cast", [origin], value, dtype, [ir.AttrInt64("to", dtype)])

    def _with_half_scale(self, node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
        """Input and float16 scale for a DequantizeLinear; None where float16 is too coarse for them.

        A weight is rounded anew to what scales there are: a cast behind it would keep it from its INT8 kernel.
        """
        data, scale = node.inputs[0], node.inputs[1]
        assert data is not None and scale is not None
        if scale.const_value is None:
            return None
        if float16_holds(scale.const_value.numpy()).all():
            return data, self._as(scale, _HALF)
        if data.const_value is None or data.dtype != ir.DataType.INT8:
            return None
        rescaled = rescale(data.const_value.numpy(), scale.const_value.numpy(), node.attributes.get_int("axis", 1))
        if rescaled is None:
            return None
        values, halves = ir.tensor(rescaled[0]), ir.tensor(rescaled[1])
        return self._initializer(f"{data.name}.float16", values), self._initializer(f"{scale.name}.float16", halves)

    def _constant(self, value: ir.Value) -> ir.Value:
        """A float16 initializer whose numbers are made when they are written."""
        assert value.const_value is not None
        name = f"{value.name}.float16"
        return self._initializer(name, lazy_cast(value.const_value, _HALF, name))

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.val(self._free(name), const_value=tensor)
        tensor.name = value.name
        self._graph.register_initializer(value)
        return value

    def _name_weights(self) -> None:
        """Weights that nothing reads as float32 any more leave their name to the float16 ones."""
        for (value, _), made in self._other.items():
            if value.is_initializer() and not value.uses() and not value.is_graph_output():
                name = str(value.name)
                del self._graph.initializers[name]
                made.name = name

    def _node(
        self,
        op_type: str,
        inputs: Iterable[ir.Value | None],
        like: ir.Value,
        dtype: ir.DataType,
        attributes: Iterable[ir.Attr],
    ) -> ir.Value:
        """A node whose output has the shape of `like`; it may stand anywhere, since the graph is sorted at the end."""
        name = self._free(f"{like.name}.{'float16' if dtype == _HALF else 'float32'}")
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=like.shape)
        self._graph.append(ir.Node("", op_type, list(inputs), list(attributes), outputs=[output], name=name))
        return output

    def _free(self, wanted: str) -> str:
        name = next(name for name in chain([wanted], (f"{wanted}.{i}" for i in count(1))) if name not in self._names)
        self._names.add(name)
        return name


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """All tensors of the main graph."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()
