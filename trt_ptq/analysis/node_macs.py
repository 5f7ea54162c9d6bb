"""Multiply-accumulate operations of single nodes, from the shapes of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import onnx

from trt_ptq.analysis.shapes import Shape

# Shapes of the inputs and of the outputs; () for an omitted one.
_Count = Callable[[onnx.NodeProto, Sequence[Shape], Sequence[Shape]], int]


def _conv(_: onnx.NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return prod(outputs[0]) * prod(inputs[1][1:])  # weight [out, in / groups, ...]: MACs per output value


def _conv_transpose(_: onnx.NodeProto, inputs: Sequence[Shape], _outputs: Sequence[Shape]) -> int:
    return prod(inputs[0]) * prod(inputs[1][1:])  # weight [in, out / groups, ...]: MACs per input value


def _gemm(node: onnx.NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(outputs[0]) * inputs[0][0 if transposed else -1]


def _matmul(_: onnx.NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return prod(outputs[0]) * inputs[0][-1]


def _recurrent(_: onnx.NodeProto, inputs: Sequence[Shape], _outputs: Sequence[Shape]) -> int:
    """Each position multiplies with the input and the recurrent weights, [directions, gates * hidden, ...]."""
    return prod(inputs[0][:2]) * (prod(inputs[1]) + prod(inputs[2]))


def _einsum(node: onnx.NodeProto, inputs: Sequence[Shape], _outputs: Sequence[Shape]) -> int:
    """The product of the sizes of all indices, once for each operand after the first."""
    equation = next(attribute.s for attribute in node.attribute if attribute.name == "equation").decode()
    terms = equation.replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=False):
        before, ellipsis, after = term.partition("...")
        broadcast = len(shape) - len(before) - len(after)
        # Axes of an ellipsis count from the last one, as broadcasting does.
        names = [*before, *(f"...{axis}" for axis in range(broadcast, 0, -1) if ellipsis), *after]
        for name, size in zip(names, shape, strict=False):
            sizes[name] = max(sizes.get(name, 1), size)
    return prod(sizes.values()) * (len(terms) - 1)


def _attention(node: onnx.NodeProto, inputs: Sequence[Shape], _outputs: Sequence[Shape]) -> int:
    """Every query with every key, and every weight with every value; q [batch, (heads,) positions, ...]."""
    query, key, value = inputs[:3]
    heads = {attribute.name: attribute.i for attribute in node.attribute}
    past = inputs[4][2] if len(inputs) > 4 and inputs[4] else 0  # [batch, heads, positions, size]
    if len(query) == 4:
        pairs, width = prod(query[:3]) * (key[2] + past), query[3] + value[3]
    else:
        q_heads, kv_heads = heads.get("q_num_heads") or 1, heads.get("kv_num_heads") or 1
        pairs = prod(query[:2]) * q_heads * (key[1] + past)
        width = query[2] // q_heads + value[2] // kv_heads
    return pairs * width


_COUNTS: Mapping[str, _Count] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DeformConv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
    "Attention": _attention,
}
COUNTED_OPS = frozenset(_COUNTS)

_NEEDED_OUTPUTS = frozenset({"Conv", "DeformConv", "Gemm", "MatMul"})


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """The MACs of a node whose operator is one of `COUNTED_OPS`.

    Raises:
        KeyError: A shape that is needed is not in `shapes`; its argument is the name of the tensor.
    """
    inputs = [shapes[name] if name else () for name in node.input]
    outputs = [shapes[name] if name else () for name in node.output] if node.op_type in _NEEDED_OUTPUTS else []
    return _COUNTS[node.op_type](node, inputs, outputs)
