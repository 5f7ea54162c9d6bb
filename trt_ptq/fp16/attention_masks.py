"""Constants of attention masks, such as -3.4e38, that float16 cannot hold but that a smaller one can replace.

A mask ends in a Softmax, directly (`Where(mask, scores, constant)`) or after it was added to scores. The Softmax of a
masked score is 0 with either constant, as long as its row has a score that is not masked. Rows that are masked as a
whole are equal everywhere if the mask replaces the scores. Where it is added to them, this holds

- for scores so small that both formats round the sum to the constant, which is -65504 then, or
- if no row was masked as a whole in the data that the activations were measured on (`row_maxima`). The constant leaves
  room for the scores then, so that such a row, of other data, stays finite: its result is another one, though.

(A kernel that fuses Add and Softmax and does not round between them gives such a row, whose result means nothing, the
Softmax of its scores.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from trt_ptq.fp16.keep_fp32 import FLOAT16_MAX, MARGIN
from trt_ptq.onnx_io.domains import ONNX_DOMAINS
from trt_ptq.onnx_io.lazy_tensor import lazy_map
from trt_ptq.types import Array

_MAX_SCORE = FLOAT16_MAX / MARGIN  # far from the constant
_MAX_ADDED = 16  # smaller values do not change -65504 in float16
_MAX_OBSERVED = _MAX_SCORE / 4  # with room for MARGIN times the scores, the constant is still far from them
_SHAPING_OPS = {"Identity", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Tile"}

Bound = Callable[[ir.Value], float | None]


@dataclass(frozen=True)
class ClampedMask:
    """A mask constant that is smaller in the float16 model.

    Attributes:
        name: The name of the constant.
        value: Its value in the float32 model.
        clamped: Its value in the float16 model.
        assumed: Whether this assumes that no row is masked as a whole, as in the data that was measured; otherwise no
            output changes whatever the inputs are.
    """

    name: str
    value: float
    clamped: float = -FLOAT16_MAX
    assumed: bool = False


@dataclass
class MaskPath:
    """A constant and what depends on it, up to the Softmax.

    Attributes:
        constant: The constant.
        value: Its value where it masks.
        amax: The largest magnitude of each tensor that depends on it, where it does not mask.
        softmax_inputs: The tensors in which it reaches a Softmax.
        additions: The nodes that add it to scores; they must run in float16.
        added: The largest magnitude of all that it is added to.
        assumed: See `ClampedMask`.
    """

    constant: ir.Value
    value: float
    amax: dict[ir.Value, float] = field(default_factory=dict)
    softmax_inputs: list[ir.Value] = field(default_factory=list)
    additions: list[ir.Node] = field(default_factory=list)
    added: float = 0.0
    assumed: bool = False

    @property
    def clamped(self) -> float:
        """The value that replaces `value`; float16 holds it."""
        if not self.assumed:
            return -FLOAT16_MAX
        return -float(np.nextafter(np.float16(FLOAT16_MAX - MARGIN * self.added), np.float16(0)))


def row_maxima(tensor: str) -> str:
    """What `amax` calls the maxima of `tensor`, a Softmax's input, along the axis of the Softmax."""
    return f"{tensor} (row maxima)"


def find_masks(graph: ir.Graph, bound: Bound, row_bound: Bound) -> list[MaskPath]:
    """The mask constants that one in float16's range can replace.

    Args:
        graph: The graph, with constants as initializers.
        bound: The largest magnitude of a tensor; None if unknown.
        row_bound: The largest magnitude of the `row_maxima` of a tensor; None if unknown.
    """
    paths = []
    for constant in graph.initializers.values():
        if constant.dtype != ir.DataType.FLOAT or constant.const_value is None:
            continue
        if (bound(constant) or 0) <= FLOAT16_MAX:
            continue
        values = constant.const_value.numpy()
        is_beyond = np.isfinite(values) & (np.abs(values) > FLOAT16_MAX)
        masking = np.unique(values[is_beyond])
        if len(masking) != 1 or masking[0] > 0 or np.isinf(values).any():
            continue
        path = MaskPath(constant, float(masking[0]))
        unmasked = float(np.abs(values[~is_beyond]).max(initial=0))
        if _reaches_only_softmax(graph, constant, unmasked, path, bound) and _is_sound(path, row_bound):
            paths.append(path)
    return paths


def clamp(path: MaskPath) -> None:
    """Replace the constant by one that is `path.clamped` where it masks."""
    tensor = path.constant.const_value
    assert tensor is not None
    lowest = np.float32(path.clamped)

    def clamped(values: Array) -> Array:
        return np.maximum(values, lowest)

    path.constant.const_value = lazy_map(tensor, clamped, ir.DataType.FLOAT, str(path.constant.name))


def _is_sound(path: MaskPath, row_bound: Bound) -> bool:
    """Whether no output changes, or none on the data that was measured; sets `assumed`."""
    step = -path.value - float(np.nextafter(np.float32(-path.value), np.float32(0)))
    if path.added < min(_MAX_ADDED, step / 2):
        return True
    path.assumed = True
    rows = [_bound(value, row_bound) for value in path.softmax_inputs]
    return all(amax is not None and amax <= _MAX_SCORE for amax in rows)


def _reaches_only_softmax(graph: ir.Graph, value: ir.Value, amax: float, path: MaskPath, bound: Bound) -> bool:
    """Follow `value`, whose magnitude is at most `amax` where it does not mask, to all its readers."""
    if value.is_graph_output() or amax > _MAX_SCORE:
        return False
    if value is not path.constant:
        path.amax[value] = max(amax, path.amax.get(value, 0))
    for node, index in value.uses():
        if node.graph is not graph or node.domain not in ONNX_DOMAINS:
            return False
        if node.op_type == "Softmax":
            path.softmax_inputs.append(value)
            continue
        result = _amax_after(node, index, amax, path, bound)
        if result is None or not _reaches_only_softmax(graph, node.outputs[0], result, path, bound):
            return False
    return True


def _amax_after(node: ir.Node, index: int, amax: float, path: MaskPath, bound: Bound) -> float | None:
    """`amax` of the output of `node`, which reads the mask as input `index`; None if it is no mask any more."""
    if node.op_type in _SHAPING_OPS:
        return amax if index == 0 else None
    if node.op_type == "Where" and index > 0:
        other = _bound(node.inputs[3 - index], bound)
        return None if other is None else max(amax, other)
    if node.op_type == "Mul":
        return amax if _is_zero_or_one(node.inputs[1 - index], bound) else None
    if node.op_type == "Add":
        scores = _bound(node.inputs[1 - index], bound)
        if scores is None or scores > _MAX_OBSERVED:
            return None
        path.additions.append(node)
        path.added = max(path.added, scores)
        return amax + scores
    return None


def _bound(value: ir.Value | None, bound: Bound) -> float | None:
    amax = None if value is None else bound(value)
    return None if amax is None or np.isnan(amax) else amax


def _is_zero_or_one(value: ir.Value | None, bound: Bound) -> bool:
    """Whether the magnitude of all values is 0 or 1: integers that were measured to be at most 1."""
    measured = _bound(value, bound)
    return measured is not None and measured <= 1 and _is_integer(value)


def _is_integer(value: ir.Value | None) -> bool:
    if value is None:
        return False
    if value.const_value is not None:
        numbers = value.const_value.numpy()
        return bool((numbers == np.rint(numbers)).all())
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "Cast":
        source = node.inputs[0]
        return (
            source is not None
            and source.dtype is not None
            and (source.dtype.is_integer() or source.dtype == ir.DataType.BOOL)
        )
    if node.op_type in ("Sub", "Mul"):
        return all(map(_is_integer, node.inputs))
    return node.op_type in _SHAPING_OPS and _is_integer(node.inputs[0])
