"""From float32 to float16: a whole model, or what is not INT8 of a Q/DQ model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.graph.float16_range import KeptNode, choose_slots
from trt_ptq.graph.model import Model
from trt_ptq.graph.opset import raise_opset
from trt_ptq.graph.retype import Retyping

HighPrecision = Literal["fp16", "fp32"]  # of what is not INT8

_QDQ_OPSET = 19  # the first with float16 scales


@dataclass(frozen=True)
class HalfModel:
    """A strongly typed float16 model, and the nodes that stayed float32."""

    model: ir.Model
    kept: tuple[KeptNode, ...]


def to_float16(model: Model, amax: Mapping[str, float] | None = None) -> ir.Model:
    """The model with float16 weights and computation; inputs and outputs keep their types. `amax`: see `halve`."""
    return halve(model.to_ir(), amax).model


def halve(model: ir.Model, amax: Mapping[str, float] | None = None) -> HalfModel:
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
    turned, kept = choose_slots(model.graph, amax)
    Retyping(model.graph, turned).run()
    passes.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    return HalfModel(model, tuple(kept.values()))
