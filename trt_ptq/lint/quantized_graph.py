"""A Q/DQ graph as the rules see it: its quantizers, read once, and ways to follow tensors between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from trt_ptq.types import Array

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_LINEAR_DOMAINS = ("", "ai.onnx", "com.microsoft")  # builders take all three alike
_FIRST_WITH_AXIS = 13

# Data passes through these as it is, so a builder moves DequantizeLinear behind them. Seen: a convolution behind each
# one of these reads int8 (behind eight of them in a row it read float).
_MOVING = {
    *("Identity", "Dropout", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
    *("Slice", "Split", "Gather", "Expand", "Pad", "DepthToSpace", "SpaceToDepth", "MaxPool"),
}
_SHAPE_OPS = {"Shape", "Size"}


@dataclass(frozen=True, eq=False)
class Quantizer:
    """A QuantizeLinear or DequantizeLinear.

    `scale` and `zero_point` are None where they are computed in the graph (and `zero_point` where there is none);
    `dtype` is that of the quantized side by the ONNX standard, None where the model does not tell; `axis` counts from
    the front, and has no meaning for a scale of one element; `on_constant`: no input of the model reaches the data.
    """

    node: ir.Node
    data: ir.Value
    scale: Array | None
    zero_point: Array | None
    has_zero_point: bool
    dtype: ir.DataType | None
    axis: int
    block_size: int
    on_constant: bool

    @property
    def quantizes(self) -> bool:
        """Whether it is a QuantizeLinear."""
        return self.node.op_type == QUANTIZE

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def per_channel(self) -> bool:
        """Whether it has several scales, one for each index along `axis`."""
        return self.scale is not None and self.scale.size > 1 and not self.block_size

    def same_scale(self, other: Quantizer) -> bool:
        """Whether both are known to have the same scales, or one of them is not known."""
        if self.scale is None or other.scale is None:
            return True
        return np.array_equal(self.scale.ravel(), other.scale.ravel(), equal_nan=True)


@dataclass(frozen=True, eq=False)
class QuantizedGraph:
    """All nodes of a model, those of If and Loop bodies too.

    `measured` is the largest magnitude that each tensor of the float model took, where statistics were given.
    """

    graph: ir.Graph
    opset: int
    measured: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[ir.Node, ...]:
        return tuple(self.graph.all_nodes())

    @cached_property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """Every QuantizeLinear and DequantizeLinear, in graph order."""
        return tuple(self._by_node.values())

    @cached_property
    def encoders(self) -> tuple[Quantizer, ...]:
        """Those that decide on an encoding: all but the DequantizeLinear that undoes a QuantizeLinear."""
        return tuple(one for one in self.quantizers if one.quantizes or self.maker(one.data) is None)

    def maker(self, value: ir.Value | None) -> Quantizer | None:
        """The quantizer whose output `value` is; None if it is another node's, an input or a constant."""
        producer = value.producer() if value is not None else None
        return self._by_node.get(producer) if producer is not None else None

    def carries_data(self, value: ir.Value | None) -> bool:
        """Whether `value` depends on the values of an input of the model, and not just on shapes and constants."""
        return value in self._carrying

    def dequantizer(self, value: ir.Value | None) -> Quantizer | None:
        """The DequantizeLinear from which `value` comes unchanged, but for its arrangement; None if there is none.

        Behind a Concat it is the first input's, if all inputs have one and all have the same scale.
        """
        if value is None:
            return None
        if value not in self._dequantizers:
            self._dequantizers[value] = self._find_dequantizer(value)
        return self._dequantizers[value]

    def _find_dequantizer(self, value: ir.Value) -> Quantizer | None:
        made = self.maker(value)
        if made is not None:
            return None if made.quantizes else made
        producer = value.producer()
        if producer is None:
            return None
        if producer.op_type == "Concat":
            found = [self.dequantizer(one) for one in producer.inputs]
            first = found[0]
            if first is not None and all(one is not None and one.same_scale(first) for one in found):
                return first
            return None
        return self.dequantizer(producer.inputs[0]) if producer.op_type in _MOVING else None

    def axis_in(self, value: ir.Value, dequantizer: Quantizer) -> int | None:
        """The axis of `value` along which the channels of `dequantizer` lie; None where that cannot be told."""
        producer = value.producer()
        if producer is None or producer is dequantizer.node:
            return dequantizer.axis
        before = producer.inputs[0]
        inner = self.axis_in(before, dequantizer) if before is not None else None
        if inner is None or producer.op_type not in ("Identity", "Cast", "Transpose"):
            return None
        if producer.op_type != "Transpose":
            return inner
        order = producer.attributes.get_ints("perm", [])
        if order:
            return list(order).index(inner)
        rank = rank_of(dequantizer.data)
        return None if rank is None else rank - 1 - inner

    @cached_property
    def _dequantizers(self) -> dict[ir.Value, Quantizer | None]:
        return {}  # what `dequantizer` found: Concats of Concats have a great many paths

    @cached_property
    def _by_node(self) -> dict[ir.Node, Quantizer]:
        return {node: self._read(node) for node in self.nodes if is_linear(node)}

    def _read(self, node: ir.Node) -> Quantizer:
        data = node.inputs[0]
        assert data is not None
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        axis = node.attributes.get_int("axis", 1) if self.opset >= _FIRST_WITH_AXIS else 0
        rank = rank_of(data)
        if axis < 0 and rank is not None:
            axis += rank
        return Quantizer(
            node=node,
            data=data,
            scale=_values(node.inputs[1]),
            zero_point=_values(zero),
            has_zero_point=zero is not None,
            dtype=_quantized_type(node, zero),
            axis=axis,
            block_size=node.attributes.get_int("block_size", 0),
            on_constant=not self.carries_data(data),
        )

    @cached_property
    def _carrying(self) -> set[ir.Value | None]:
        carrying: set[ir.Value | None] = {one for one in self.graph.inputs if one.name not in self.graph.initializers}
        for node in self.nodes:
            bodies = list(_bodies(node))
            for body in bodies:
                carrying.update(body.inputs)
            if bodies or (node.op_type not in _SHAPE_OPS and any(one in carrying for one in node.inputs)):
                carrying.update(node.outputs)
        return carrying - {None}


def is_linear(node: ir.Node) -> bool:
    """Whether `node` is a QuantizeLinear or DequantizeLinear, of ONNX or of ONNX Runtime's own operators."""
    return node.op_type in (QUANTIZE, DEQUANTIZE) and node.domain in _LINEAR_DOMAINS


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant that `value` is, also behind Identity, not read yet; None if it is computed or absent."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type == "Identity":
        value = producer.inputs[0]
    return None if value is None else ir.convenience.get_const_tensor(value)


def _values(value: ir.Value | None) -> Array | None:
    tensor = constant(value)
    return None if tensor is None else tensor.numpy()


def rank_of(value: ir.Value) -> int | None:
    """How many axes `value` has, where the model tells."""
    return None if value.shape is None else len(value.shape)


def _quantized_type(node: ir.Node, zero_point: ir.Value | None) -> ir.DataType | None:
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == QUANTIZE:
        return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    data = node.inputs[0]
    return None if data is None else data.dtype


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()
