"""Which nodes must stay float32 when a model is converted to float16, and why.

- Range: one of their tensors exceeds the range of float16, or is so small that float16 has no precision left.
- Offset: a constant, such as the epsilon of a normalization, is tiny, and keeps a value from being 0.
- Exactness: values computed from integers, and angles; see exactness.py.
- Operator: ONNX's schema does not allow float16, or the node has bodies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.fp16.convertible_io import TYPE_CONVERTING_OPS, ConvertibleIO, convertible_io, is_float32
from trt_ptq.fp16.exactness import needs_exactness

FLOAT16_MAX = float(np.finfo(np.float16).max)
FLOAT16_TINY = float(np.finfo(np.float16).tiny)  # smaller values lose precision
MARGIN = 4  # between the largest measured magnitude and the end of the range, for unseen data

_FACTORS = {  # inputs whose relative error is that of the output
    "Mul": {0, 1},
    "Div": {0, 1},
    "MatMul": {0, 1},
    "Gemm": {0, 1},
    "Conv": {1},
    "ConvTranspose": {1},
    "BatchNormalization": {1, 4},
}
_GUARDED_OPS = {"Sqrt", "Reciprocal", "Log", "Pow", "Div"}  # a tiny offset (x + 1e-12) keeps their input from being 0
_VALUE_PASSING_OPS = {  # a huge input value may appear in the output
    *("Where", "Add", "Sub", "Mul", "Min", "Max", "Neg", "Identity", "Concat", "Expand", "Tile", "Pad"),
    *("Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather"),
}

Cause = Literal["range", "offset", "exactness", "operator"]


@dataclass(frozen=True)
class Fp32Node:
    """A node that stays float32.

    Attributes:
        output: Its first output, which identifies it.
        op_type: The operator.
        cause: The kind of reason.
        reason: The reason in words.
    """

    output: str
    op_type: str
    cause: Cause
    reason: str


def select_convertible_io(
    graph: ir.Graph, amax: Mapping[str, float] | None
) -> tuple[dict[ir.Node, ConvertibleIO], dict[ir.Node, Fp32Node]]:
    """Select what becomes float16 of every node of the main graph that has float32 tensors.

    Args:
        graph: The graph, with constants as initializers.
        amax: The largest finite magnitude of every float32 activation; a missing tensor counts as out of range. With
            None, only constants are checked.

    Returns:
        The convertible inputs and outputs by node, and the nodes that stay float32.
    """
    exact = needs_exactness(graph)
    range_check = RangeCheck(amax)
    convertible: dict[ir.Node, ConvertibleIO] = {}
    fp32_nodes: dict[ir.Node, Fp32Node] = {}
    for node in graph:
        if node.op_type in TYPE_CONVERTING_OPS or not any(map(is_float32, (*node.inputs, *node.outputs))):
            continue
        node_io = convertible_io(node, graph.opset_imports)
        cause: Cause = "operator"
        reason = node_io if isinstance(node_io, str) else None
        if not isinstance(node_io, str):
            if violation := range_check.violation(node, node_io):
                cause, reason = violation
            elif reason := exact.get(node):
                cause = "exactness"
            else:
                convertible[node] = node_io
        if reason:
            fp32_nodes[node] = Fp32Node(name_of(node.outputs[0]), node.op_type, cause, reason)
    return convertible, fp32_nodes


class RangeCheck:
    """Compares tensors with the range of float16; check nodes in graph order."""

    def __init__(self, amax: Mapping[str, float] | None) -> None:
        self._measured = amax
        self._constant_amax: dict[ir.Value, float] = {}
        self._out_of_range: dict[ir.Value, tuple[Cause, str]] = {}  # because of a constant, measured or not

    def violation(self, node: ir.Node, convertible: ConvertibleIO) -> tuple[Cause, str] | None:
        """The kind of reason why float16 cannot hold tensors of the node, and the reason; None if it can."""
        affected = {
            *(node.inputs[index] for index in convertible.inputs),
            *(node.outputs[index] for index in convertible.outputs),
        }
        values = [value for value in (*node.inputs, *node.outputs) if value in affected and value is not None]
        for index, value in enumerate(node.inputs):
            if value in affected and value is not None and self._underflows(node, index, value):
                cause: Cause = "range" if index in _FACTORS.get(node.op_type, ()) else "offset"
                self._out_of_range.update(dict.fromkeys(node.outputs, (cause, "must not become 0 in float16")))
                return cause, f"the largest magnitude of constant {value.name!r} is {self._exact_amax(value):.4g}"
        violation = next((found for value in values if (found := self._value_violation(node, value))), None)
        if violation and self._measured is None and node.op_type in _VALUE_PASSING_OPS:
            self._out_of_range.update(dict.fromkeys(node.outputs, ("range", "may exceed the range of float16")))
        return violation

    def amax(self, value: ir.Value) -> float | None:
        """The largest magnitude of a constant, or the measured one of another tensor; None if unknown."""
        exact = self._exact_amax(value)
        return exact if exact is not None or self._measured is None else self._measured.get(name_of(value))

    def _value_violation(self, node: ir.Node, value: ir.Value) -> tuple[Cause, str] | None:
        if value in self._out_of_range:
            cause, reason = self._out_of_range[value]
            return cause, f"{value.name!r} {reason}"
        violation = self._range_violation(node, value)
        return None if violation is None else ("range", violation)

    def _range_violation(self, node: ir.Node, value: ir.Value) -> str | None:
        exact = self._exact_amax(value)
        if exact is not None:
            too_large = exact > FLOAT16_MAX and not _is_ineffective_bound(node, value)
            return f"constant {value.name!r} reaches {exact:.4g}" if too_large else None
        if self._measured is None:
            return None
        measured = self._measured.get(name_of(value))
        if measured is None:
            measured = self._bound(value)
        if measured is None:
            return f"{value.name!r} was not measured"
        if not measured <= FLOAT16_MAX / MARGIN:
            return f"{value.name!r} reaches {measured:.4g}"
        if 0 < measured < FLOAT16_TINY:
            return f"the largest magnitude of {value.name!r} is {measured:.4g}"
        return None

    def _bound(self, value: ir.Value) -> float | None:
        """The largest magnitude that matters of a tensor beside Q/DQ, such as those of an INT8 cache; None if unknown.

        QuantizeLinear clips what is larger, and a product with a constant is no larger than that of the magnitudes.
        """
        readers = [use.node for use in value.uses()]
        if readers and all(reader.op_type == "QuantizeLinear" for reader in readers):
            scales = [reader.inputs[1] for reader in readers]
            return max(self._amax_of_constant(scale) * 128 for scale in scales if scale is not None)
        source = value.producer()
        if source is None or source.op_type != "Mul":
            return None
        factors = [None if factor is None else self.amax(factor) for factor in source.inputs]
        return None if None in factors else math.prod(factor for factor in factors if factor is not None)

    def _underflows(self, node: ir.Node, index: int, value: ir.Value) -> bool:
        """Whether input `index` is a constant below the normal range of float16 whose magnitude matters."""
        exact = self._exact_amax(value)
        if exact is None or not 0 < exact < FLOAT16_TINY:
            return False
        readers = [use.node for output in node.outputs for use in output.uses()]
        return index in _FACTORS.get(node.op_type, ()) or any(reader.op_type in _GUARDED_OPS for reader in readers)

    def _exact_amax(self, value: ir.Value) -> float | None:
        """The largest magnitude of a constant or of a DequantizeLinear's output; None for other tensors."""
        if value.const_value is not None:
            return self._amax_of_constant(value)
        source = value.producer()
        if source is not None and source.op_type == "DequantizeLinear":
            scale = source.inputs[1]
            if scale is not None and scale.const_value is not None:
                return self._amax_of_constant(scale) * 128
        return None

    def _amax_of_constant(self, value: ir.Value) -> float:
        if value not in self._constant_amax:
            assert value.const_value is not None
            self._constant_amax[value] = _finite_amax(value.const_value.numpy())
        return self._constant_amax[value]


def _finite_amax(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if not (np.isfinite(low) and np.isfinite(high)):
        return float(np.abs(array[np.isfinite(array)]).max(initial=0))
    return max(-low, high)


def _is_ineffective_bound(node: ir.Node, value: ir.Value) -> bool:
    """Whether `value` is a bound of a Clip that clips nothing in the range of float16."""
    if node.op_type != "Clip" or value.const_value is None:
        return False
    bound = float(value.const_value.numpy().reshape(-1)[0])
    return bound < 0 if node.inputs[1] is value else bound > 0
