"""Which nodes must stay float32 when a model turns to float16, and why.

- Range: a tensor or constant of theirs exceeds float16's range, or is so small that float16 has no precision left.
- Exactness: numbers made of integers, and angles; see float16_exactness.py.
- Operator: ONNX's schema knows no float16 for them, or they have bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from trt_ptq.fp16.convertible_io import TYPE_CONVERTING_OPS, ConvertibleIO, convertible_io, is_float32
from trt_ptq.fp16.exactness import needs_exactness

FLOAT16_MAX = float(np.finfo(np.float16).max)
FLOAT16_TINY = float(np.finfo(np.float16).tiny)  # below it, values lose bits
MARGIN = 4  # between the largest magnitude seen and the end of the range, for data that was not seen

_FACTORS = {  # inputs whose relative precision is that of the output
    "Mul": {0, 1},
    "Div": {0, 1},
    "MatMul": {0, 1},
    "Gemm": {0, 1},
    "Conv": {1},
    "ConvTranspose": {1},
    "BatchNormalization": {1, 4},
}
_NEVER_ZERO = {"Sqrt", "Reciprocal", "Log", "Pow", "Div"}  # what a tiny offset (x + 1e-12) guards
_PASSING = {  # a huge number that goes in may come out
    *("Where", "Add", "Sub", "Mul", "Min", "Max", "Neg", "Identity", "Concat", "Expand", "Tile", "Pad"),
    *("Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather"),
}

Cause = Literal["range", "exactness", "operator"]


@dataclass(frozen=True)
class Fp32Node:
    """A node that stays float32, by the name of its first output."""

    output: str
    op_type: str
    cause: Cause
    reason: str


def select_convertible_io(
    graph: ir.Graph, amax: Mapping[str, float] | None
) -> tuple[dict[ir.Node, ConvertibleIO], dict[ir.Node, Fp32Node]]:
    """For every node of the main graph that handles float32 tensors: what of it turns to float16, or why nothing does.

    `amax` is the largest finite magnitude of every float32 tensor that is no constant; a tensor that it lacks is
    taken to be beyond the range. With None, only constants are judged.
    """
    exact = needs_exactness(graph)
    judge = _Range(amax)
    turned: dict[ir.Node, ConvertibleIO] = {}
    kept: dict[ir.Node, Fp32Node] = {}
    for node in graph:
        if node.op_type in TYPE_CONVERTING_OPS or not any(map(is_float32, (*node.inputs, *node.outputs))):
            continue
        convertible = convertible_io(node, graph.opset_imports)
        cause: Cause = "operator"
        reason = convertible if isinstance(convertible, str) else None
        if not isinstance(convertible, str):
            if reason := judge.why_not(node, convertible):
                cause = "range"
            elif reason := exact.get(node):
                cause = "exactness"
            else:
                turned[node] = convertible
        if reason:
            kept[node] = Fp32Node(node.outputs[0].name or "", node.op_type, cause, reason)
    return turned, kept


class _Range:
    """Compares tensors with float16's range."""

    def __init__(self, amax: Mapping[str, float] | None) -> None:
        self._measured = amax
        self._constants: dict[ir.Value, float] = {}
        self._beyond: dict[ir.Value, str] = {}  # follows from a constant, measured or not

    def why_not(self, node: ir.Node, convertible: ConvertibleIO) -> str | None:
        """Why the range of float16 does not do for the node; None when it does."""
        used = {
            *(node.inputs[index] for index in convertible.inputs),
            *(node.outputs[index] for index in convertible.outputs),
        }
        values = [value for value in (*node.inputs, *node.outputs) if value in used and value is not None]
        for index, value in enumerate(node.inputs):
            if value in used and value is not None and self._vanishes(node, index, value):
                self._beyond.update(dict.fromkeys(node.outputs, "must not become 0 in float16"))
                return f"constant {value.name!r} is no larger than {self._constant(value):.4g}"
        reason = next((told for value in values if (told := self._why_not(node, value))), None)
        if reason and self._measured is None and node.op_type in _PASSING:
            self._beyond.update(dict.fromkeys(node.outputs, "may exceed float16's range"))
        return reason

    def _why_not(self, node: ir.Node, value: ir.Value) -> str | None:
        if value in self._beyond:
            return f"{value.name!r} {self._beyond[value]}"
        exact = self._exact_amax(value)
        if exact is not None:
            too_large = exact > FLOAT16_MAX and not _is_open_end(node, value)
            return f"constant {value.name!r} reaches {exact:.4g}" if too_large else None
        if self._measured is None:
            return None
        seen = self._measured.get(value.name or "")
        if seen is None:
            return f"{value.name!r} was not measured"
        if not seen <= FLOAT16_MAX / MARGIN:
            return f"{value.name!r} reaches {seen:.4g}"
        if 0 < seen < FLOAT16_TINY:
            return f"{value.name!r} is no larger than {seen:.4g}"
        return None

    def _vanishes(self, node: ir.Node, index: int, value: ir.Value) -> bool:
        """Whether input `index` is a constant below float16's normal range whose size matters."""
        exact = self._exact_amax(value)
        if exact is None or not 0 < exact < FLOAT16_TINY:
            return False
        readers = [use.node for output in node.outputs for use in output.uses()]
        return index in _FACTORS.get(node.op_type, ()) or any(one.op_type in _NEVER_ZERO for one in readers)

    def _exact_amax(self, value: ir.Value) -> float | None:
        """The largest magnitude where it follows from constants: their own, or what a DequantizeLinear can give."""
        if value.const_value is not None:
            return self._constant(value)
        source = value.producer()
        if source is not None and source.op_type == "DequantizeLinear":
            scale = source.inputs[1]
            if scale is not None and scale.const_value is not None:
                return self._constant(scale) * 128
        return None

    def _constant(self, value: ir.Value) -> float:
        if value not in self._constants:
            assert value.const_value is not None
            self._constants[value] = _finite_amax(value.const_value.numpy())
        return self._constants[value]


def _finite_amax(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if not (np.isfinite(low) and np.isfinite(high)):
        return float(np.abs(array[np.isfinite(array)]).max(initial=0))
    return max(-low, high)


def _is_open_end(node: ir.Node, value: ir.Value) -> bool:
    """Whether `value` is a bound of a Clip that lets everything in float16's range pass."""
    if node.op_type != "Clip" or value.const_value is None:
        return False
    bound = float(value.const_value.numpy().reshape(-1)[0])
    return bound < 0 if node.inputs[1] is value else bound > 0
