"""Convert a float32 model, or the float32 part of a Q/DQ model, to float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.fp16.attention_masks import ClampedMask, MaskPath, clamp, find_masks, row_maxima
from trt_ptq.fp16.keep_fp32 import Fp32Node, RangeCheck, select_convertible_io
from trt_ptq.fp16.retype import Float16Rewriter
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.opset import raise_opset

_QDQ_OPSET = 19  # the first that allows float16 scales


@dataclass(frozen=True)
class Float16Model:
    """A strongly typed float16 model.

    Attributes:
        model: The model.
        fp32_nodes: The nodes that stay float32, and why.
        clamped_masks: The mask constants that were clamped to what float16 holds; see attention_masks.py.
    """

    model: ir.Model
    fp32_nodes: tuple[Fp32Node, ...]
    clamped_masks: tuple[ClampedMask, ...] = ()


def to_float16(model: Model, amax: Mapping[str, float] | None = None) -> ir.Model:
    """A float16 copy of `model`; see `convert_to_float16`."""
    return convert_to_float16(model.to_ir(), amax).model


def convert_to_float16(model: ir.Model, amax: Mapping[str, float] | None = None) -> Float16Model:
    """Convert the float32 tensors of the main graph to float16, except those of nodes that must stay float32.

    The inputs and outputs of the model keep their types; casts are inserted only between float16 and float32. Weights
    are converted one at a time when the model is saved. The scales of a Q/DQ model become float16 too, which requires
    opset 19.

    Args:
        model: A float32 model, quantized or not; do not use it afterwards.
        amax: The largest magnitude of every float32 activation, as measured by `measure_amax`. Without it, only
            constants are checked for overflow.

    Returns:
        The float16 model, and the nodes that stay float32.

    Raises:
        ModelError: A Q/DQ model cannot be converted to opset 19.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph):
        model = raise_opset(model, _QDQ_OPSET)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    paths = [] if amax is None else _clampable_masks(model.graph, amax)
    measured = _clamp(paths, amax)
    convertible, fp32_nodes = select_convertible_io(model.graph, measured)
    Float16Rewriter(model.graph, convertible).run()
    passes.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    masks = tuple(ClampedMask(name_of(path.constant), path.value, path.clamped, path.assumed) for path in paths)
    return Float16Model(model, tuple(fp32_nodes.values()), masks)


def _clampable_masks(graph: ir.Graph, amax: Mapping[str, float]) -> list[MaskPath]:
    """The mask constants that can be clamped, as float16 then holds all that depends on them."""
    paths = find_masks(graph, RangeCheck(amax).amax, lambda value: amax.get(row_maxima(name_of(value))))
    while paths:
        originals = [path.constant.const_value for path in paths]
        convertible, _ = select_convertible_io(graph, _clamp(paths, amax))
        for path, original in zip(paths, originals, strict=True):
            path.constant.const_value = original
        clampable = [path for path in paths if all(node in convertible for node in path.additions)]
        if len(clampable) == len(paths):
            break
        paths = clampable
    return paths


def _clamp(paths: list[MaskPath], amax: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """Clamp the mask constants; return `amax` without what they mask."""
    for path in paths:
        clamp(path)
    masked = {name_of(value): bound for path in paths for value, bound in path.amax.items()}
    return None if amax is None else {**amax, **masked}
