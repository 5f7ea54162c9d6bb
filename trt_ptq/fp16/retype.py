"""Rewrite a graph to float16: tensor types, weights, scales, and casts between float16 and float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from trt_ptq.analysis.dataflow import bodies, keep_name
from trt_ptq.fp16.convertible_io import TYPE_CONVERTING_OPS, ConvertibleIO, is_float32
from trt_ptq.fp16.qdq_scales import float16_holds, rescale
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.lazy_tensor import lazy_cast

_FLOAT16, _FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


class Float16Rewriter:
    """Rewrites one graph: first the output types, then every use of a tensor to the type that its reader needs."""

    def __init__(self, graph: ir.Graph, convertible: Mapping[ir.Node, ConvertibleIO]) -> None:
        """Prepare to convert the inputs and outputs in `convertible` (see `select_convertible_io`)."""
        self._graph = graph
        self._convertible = convertible
        self._floats = {value for value in _values(graph) if is_float32(value)}
        self._editor = GraphEditor(graph)
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        """Rewrite the graph; sort its nodes afterwards."""
        nodes = list(self._graph)
        for node, node_io in self._convertible.items():
            for index in node_io.outputs:
                node.outputs[index].dtype = _FLOAT16
        for node in nodes:
            if node.op_type == "QuantizeLinear":
                self._convert_quantizer(node)
            elif node.op_type not in TYPE_CONVERTING_OPS and not self._accepts_any_type(node):
                float16_inputs = self._convertible.get(node, ConvertibleIO()).inputs
                for index, value in enumerate(node.inputs):
                    if value in self._floats:
                        dtype = _FLOAT16 if index in float16_inputs else _FLOAT32
                        node.replace_input_with(index, self._as(value, dtype))
            self._keep_bodies_float32(node)
        self._rename_weights()
        for index, value in enumerate(self._graph.outputs):
            if value in self._floats and value.dtype == _FLOAT16:
                if (producer := value.producer()) is not None:
                    keep_name(producer)
                name, value.name = value.name, self._editor.unique_name(f"{value.name}.float16")
                output = self._as(value, _FLOAT32)
                output.name = name
                self._graph.outputs[index] = output

    def _accepts_any_type(self, node: ir.Node) -> bool:
        """Whether a node reads one tensor and has no float output (Shape, ArgMax, IsNaN), so needs no cast."""
        node_io = self._convertible.get(node)
        return node_io is not None and len(node_io.inputs) == 1 and not node_io.outputs

    def _convert_quantizer(self, node: ir.Node) -> None:
        """Give the scale of a QuantizeLinear the type of its input; or cast the input if float16 is too coarse."""
        data, scale = node.inputs[0], node.inputs[1]
        assert data is not None and scale is not None
        if data.dtype == _FLOAT16:
            if scale.const_value is not None and float16_holds(scale.const_value.numpy()).all():
                node.replace_input_with(1, self._as(scale, _FLOAT16))
            else:
                node.replace_input_with(0, self._as(data, _FLOAT32))

    def _keep_bodies_float32(self, node: ir.Node) -> None:
        for body in bodies(node):
            for inner in body.all_nodes():
                for index, value in enumerate(inner.inputs):
                    if value in self._floats:
                        inner.replace_input_with(index, self._as(value, _FLOAT32))
            for index, value in enumerate(body.outputs):
                if value in self._floats:
                    body.outputs[index] = self._as(value, _FLOAT32)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` in `dtype`; converted once for all readers."""
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._converted:
            self._converted[key] = self._convert(value, dtype)
        return self._converted[key]

    def _convert(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        source = value.producer()
        if value.const_value is not None and source is None:
            return self._float16_constant(value)
        origin = value
        if dtype == _FLOAT16 and source is not None and source.op_type == "DequantizeLinear":
            data = self._with_float16_scale(source)
            if data:
                inputs = [*data, *source.inputs[2:]]
                return self._node("DequantizeLinear", inputs, value, dtype, source.attributes.values())
        if dtype == _FLOAT16 and source is not None and source.op_type == "Cast" and source.inputs[0] is not None:
            origin = source.inputs[0]  # skip the cast instead of casting back
        if origin.dtype == dtype:
            return origin
        return self._node("Cast", [origin], value, dtype, [ir.AttrInt64("to", dtype)])

    def _with_float16_scale(self, node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
        """Input and float16 scale of a DequantizeLinear; None if float16 is too coarse.

        A weight is rounded again to the available scales, since a cast after it would prevent an INT8 kernel.
        """
        data, scale = node.inputs[0], node.inputs[1]
        assert data is not None and scale is not None
        if scale.const_value is None:
            return None
        if float16_holds(scale.const_value.numpy()).all():
            return data, self._as(scale, _FLOAT16)
        if data.const_value is None or data.dtype != ir.DataType.INT8:
            return None
        rescaled = rescale(data.const_value.numpy(), scale.const_value.numpy(), node.attributes.get_int("axis", 1))
        if rescaled is None:
            return None
        values, scales = ir.tensor(rescaled[0]), ir.tensor(rescaled[1])
        return self._editor.constant(f"{data.name}.float16", values), self._editor.constant(
            f"{scale.name}.float16", scales
        )

    def _float16_constant(self, value: ir.Value) -> ir.Value:
        """Add a float16 initializer that is converted when the model is saved."""
        assert value.const_value is not None
        name = f"{value.name}.float16"
        return self._editor.constant(name, lazy_cast(value.const_value, _FLOAT16, name))

    def _rename_weights(self) -> None:
        """Give float16 weights the name of the float32 ones that nothing reads any more."""
        for (value, _), float16_value in self._converted.items():
            if value.is_initializer() and not value.uses() and not value.is_graph_output():
                name = str(value.name)
                del self._graph.initializers[name]
                float16_value.name = name

    def _node(
        self,
        op_type: str,
        inputs: Iterable[ir.Value | None],
        like: ir.Value,
        dtype: ir.DataType,
        attributes: Iterable[ir.Attr],
    ) -> ir.Value:
        """Append a node whose output has the shape of `like`; the graph is sorted at the end."""
        name = self._editor.unique_name(f"{like.name}.{'float16' if dtype == _FLOAT16 else 'float32'}")
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=like.shape)
        self._graph.append(ir.Node("", op_type, list(inputs), list(attributes), outputs=[output], name=name))
        return output


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """All tensors of the main graph."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
