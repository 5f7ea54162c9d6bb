"""Convert a Q/DQ model to float16 in the form that the builder it is meant for runs best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trt_ptq.choices import Target
from trt_ptq.fp16.convert import Float16Model, convert_to_float16
from trt_ptq.qdq.factored import PerChannel, factor_weights
from trt_ptq.qdq.insert import QdqModel


@dataclass(frozen=True)
class TargetModel:
    """A Q/DQ model with float16 activations for one target.

    Attributes:
        converted: The model.
        per_channel: For "rtx": the convolutions that are not in the factored form, and why.
    """

    converted: Float16Model
    per_channel: tuple[PerChannel, ...] = ()


def convert_for_target(qdq: QdqModel, amax: Mapping[str, float] | None, target: Target) -> TargetModel:
    """Convert the float32 part of a Q/DQ model to float16, for TensorRT-RTX in the factored form.

    Args:
        qdq: The model; do not use it afterwards.
        amax: See `convert_to_float16`.
        target: The builder it is meant for.

    Raises:
        ModelError: See `convert_to_float16`.
    """
    if target == "trt":
        return TargetModel(convert_to_float16(qdq.model, amax))
    factored = factor_weights(qdq, amax)
    amax = None if amax is None else {**amax, **factored.amax}
    return TargetModel(convert_to_float16(qdq.model, amax), factored.per_channel)
