"""A Q/DQ graph as the rules see it: its quantizers, and ways to follow tensors between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.dataflow import bodies
from trt_ptq.analysis.op_types import RESHAPING_OPS, SHAPE_OPS
from trt_ptq.onnx_io.domains import ONNX_DOMAINS
from trt_ptq.onnx_io.quantized_ops import QDQ_OPS
from trt_ptq.types import Array

_QDQ_DOMAINS = (*ONNX_DOMAINS, "com.microsoft")  # builders treat them alike
_FIRST_OPSET_WITH_AXIS = 13

# Operators that only move values, so that builders move DequantizeLinear behind them. Observed: a convolution behind
# each of these reads int8 (behind eight of them in a row it reads float).
_MOVING_OPS = RESHAPING_OPS | {
    *("Dropout", "Cast", "Slice", "Split", "Gather", "Expand", "Pad", "DepthToSpace", "SpaceToDepth", "MaxPool"),
}


@dataclass(frozen=True, eq=False)
class Quantizer:
    """A QuantizeLinear or DequantizeLinear.

    Attributes:
        node: The node.
        data: The tensor that it quantizes or dequantizes.
        scale: The scale; None if it is computed in the graph.
        zero_point: The zero point; None if it is computed in the graph, or absent.
        has_zero_point: Whether it has a zero point.
        dtype: The quantized type according to the ONNX standard; None if unknown.
        axis: The channel axis, nonnegative; without meaning for a scale of one element.
        block_size: The block size; 0 without blocks.
        on_constant: Whether `data` does not depend on an input of the model.
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
    def is_quantize(self) -> bool:
        """Whether it is a QuantizeLinear."""
        return self.node.op_type == "QuantizeLinear"

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def per_channel(self) -> bool:
        """Whether it has several scales, one per index along `axis`."""
        return self.scale is not None and self.scale.size > 1 and not self.block_size

    def same_scale(self, other: Quantizer) -> bool:
        """Whether both have the same scales; True if one of them is unknown."""
        if self.scale is None or other.scale is None:
            return True
        return np.array_equal(self.scale.ravel(), other.scale.ravel(), equal_nan=True)


@dataclass(frozen=True, eq=False)
class QuantizedGraph:
    """A Q/DQ graph, including the bodies of If, Loop and Scan.

    Attributes:
        graph: The main graph.
        opset: The version of the default operator set.
        measured: The largest measured magnitude of the tensors of the float model, if statistics were passed.
    """

    graph: ir.Graph
    opset: int
    measured: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All nodes, including those of bodies."""
        return tuple(self.graph.all_nodes())

    @cached_property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """Every QuantizeLinear and DequantizeLinear, in graph order."""
        return tuple(self._by_node.values())

    @cached_property
    def encoders(self) -> tuple[Quantizer, ...]:
        """The quantizers that define an encoding: all but a DequantizeLinear that reads from a QuantizeLinear."""
        return tuple(
            quantizer
            for quantizer in self.quantizers
            if quantizer.is_quantize or self.source_quantizer(quantizer.data) is None
        )

    def source_quantizer(self, value: ir.Value | None) -> Quantizer | None:
        """The quantizer whose output is `value`; None if it is not the output of a quantizer."""
        producer = value.producer() if value is not None else None
        return self._by_node.get(producer) if producer is not None else None

    def is_activation(self, value: ir.Value | None) -> bool:
        """Whether `value` depends on the data of a model input, not only on shapes and constants."""
        return value in self._activations

    def dequantizer(self, value: ir.Value | None) -> Quantizer | None:
        """The DequantizeLinear whose values `value` has, possibly rearranged; None if there is none.

        For the output of a Concat it is that of the first input, if all inputs have one and all scales are equal.
        """
        if value is None:
            return None
        if value not in self._dequantizers:
            self._dequantizers[value] = self._find_dequantizer(value)
        return self._dequantizers[value]

    def _find_dequantizer(self, value: ir.Value) -> Quantizer | None:
        source = self.source_quantizer(value)
        if source is not None:
            return None if source.is_quantize else source
        producer = value.producer()
        if producer is None:
            return None
        if producer.op_type == "Concat":
            dequantizers = [self.dequantizer(operand) for operand in producer.inputs]
            first = dequantizers[0]
            if first is not None and all(other is not None and other.same_scale(first) for other in dequantizers):
                return first
            return None
        return self.dequantizer(producer.inputs[0]) if producer.op_type in _MOVING_OPS else None

    def axis_in(self, value: ir.Value, dequantizer: Quantizer) -> int | None:
        """The axis of `value` that is the channel axis of `dequantizer`; None if unknown."""
        producer = value.producer()
        if producer is None or producer is dequantizer.node:
            return dequantizer.axis
        source = producer.inputs[0]
        inner = self.axis_in(source, dequantizer) if source is not None else None
        if inner is None or producer.op_type not in ("Identity", "Cast", "Transpose"):
            return None
        if producer.op_type != "Transpose":
            return inner
        permutation = producer.attributes.get_ints("perm", [])
        if permutation:
            return list(permutation).index(inner)
        rank = rank_of(dequantizer.data)
        return None if rank is None else rank - 1 - inner

    @cached_property
    def _dequantizers(self) -> dict[ir.Value, Quantizer | None]:
        return {}  # a cache, since Concats of Concats have exponentially many paths

    @cached_property
    def _by_node(self) -> dict[ir.Node, Quantizer]:
        return {node: self._read_quantizer(node) for node in self.nodes if is_quantizer(node)}

    def _read_quantizer(self, node: ir.Node) -> Quantizer:
        data = node.inputs[0]
        assert data is not None
        zero_point = node.inputs[2] if len(node.inputs) > 2 else None
        axis = node.attributes.get_int("axis", 1) if self.opset >= _FIRST_OPSET_WITH_AXIS else 0
        rank = rank_of(data)
        if axis < 0 and rank is not None:
            axis += rank
        return Quantizer(
            node=node,
            data=data,
            scale=_constant_array(node.inputs[1]),
            zero_point=_constant_array(zero_point),
            has_zero_point=zero_point is not None,
            dtype=_quantized_type(node, zero_point),
            axis=axis,
            block_size=node.attributes.get_int("block_size", 0),
            on_constant=not self.is_activation(data),
        )

    @cached_property
    def _activations(self) -> set[ir.Value | None]:
        activations: set[ir.Value | None] = {
            value for value in self.graph.inputs if value.name not in self.graph.initializers
        }
        for node in self.nodes:
            inner_graphs = list(bodies(node))
            for body in inner_graphs:
                activations.update(body.inputs)
            depends_on_data = node.op_type not in SHAPE_OPS and any(value in activations for value in node.inputs)
            if inner_graphs or depends_on_data:
                activations.update(node.outputs)
        return activations - {None}


def is_quantizer(node: ir.Node) -> bool:
    """Whether `node` is a QuantizeLinear or DequantizeLinear, of ONNX or ONNX Runtime."""
    return node.op_type in QDQ_OPS and node.domain in _QDQ_DOMAINS


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant that `value` is, possibly behind Identity; None if it is computed or absent."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type == "Identity":
        value = producer.inputs[0]
    return None if value is None else ir.convenience.get_const_tensor(value)


def _constant_array(value: ir.Value | None) -> Array | None:
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def rank_of(value: ir.Value) -> int | None:
    """The number of axes of `value`; None if unknown."""
    return None if value.shape is None else len(value.shape)


def _quantized_type(node: ir.Node, zero_point: ir.Value | None) -> ir.DataType | None:
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == "QuantizeLinear":
        return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    data = node.inputs[0]
    return None if data is None else data.dtype
