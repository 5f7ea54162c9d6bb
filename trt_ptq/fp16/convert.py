"""From float32 to float16: a whole model, or what is not INT8 of a Q/DQ model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.fp16.keep_fp32 import Fp32Node, select_convertible_io
from trt_ptq.fp16.retype import Retyping
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.opset import raise_opset

HighPrecision = Literal["fp16", "fp32"]  # of what is not INT8

_QDQ_OPSET = 19  # the first with float16 scales


@dataclass(frozen=True)
class Float16Model:
    """A strongly typed float16 model, and the nodes that stayed float32."""

    model: ir.Model
    fp32_nodes: tuple[Fp32Node, ...]


def to_float16(model: Model, amax: Mapping[str, float] | None = None) -> ir.Model:
    """The model in float16; inputs and outputs keep their types. `amax`: see `convert_to_float16`."""
    return convert_to_float16(model.to_ir(), amax).model


def convert_to_float16(model: ir.Model, amax: Mapping[str, float] | None = None) -> Float16Model:
    """Turn all float32 tensors of the main graph to float16, but for those of nodes that must stay float32.

    `model` is used up. Inputs and outputs keep their types; casts stand only where float16 and float32 meet. Weights
    are converted one by one when the model is saved. In a Q/DQ model scales become float16 too, which raises the
    opset to 19 where it is older.

    `amax` gives the largest magnitude of every float32 tensor that is no constant, as `measure_amax` finds it.
    Without it, nothing is known of overflow in activations: only constants are judged.

    Raises:
        ModelError: the opset of a Q/DQ model cannot be raised.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph):
        model = raise_opset(model, _QDQ_OPSET)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    turned, kept = select_convertible_io(model.graph, amax)
    Retyping(model.graph, turned).run()
    passes.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    return Float16Model(model, tuple(kept.values()))
