"""An INT8 model by a calibration table: by the recipe in it, the model that `quantize` verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trt_ptq.choices import HighPrecision, Target
from trt_ptq.fp16.attention_masks import ClampedMask
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.fp16.target_form import convert_for_target
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.kv_cache.int8_cache import quantize_cache
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.factored import PerChannel
from trt_ptq.qdq.insert import QdqModel, insert_qdq
from trt_ptq.qdq.ranges.match_table import MatchedTable, MatchReport
from trt_ptq.transforms.bias_correction import correct_bias


@dataclass(frozen=True, repr=False)
class QuantizedModel(QdqModel):
    """A Q/DQ model that was quantized by a table.

    Attributes:
        model: the model; its weights are quantized when it is saved.
        plan: which nodes run in INT8, and why. Nodes without a range in the table do not.
        ranges: which names of the table are in the model, and which ranges were derived from others.
        high_precision: what runs around INT8.
        fp32_nodes: with "fp16": the nodes that stay in FP32, and why.
        clamped_masks: with "fp16": the constants of attention masks that differ from those of the float model.
        measured: whether float16's range was checked against activations, not only constants.
        per_channel: convolutions that are not in TensorRT-RTX's factored form, if that is the target.
    """

    ranges: MatchReport
    high_precision: HighPrecision
    fp32_nodes: tuple[Fp32Node, ...] = ()
    clamped_masks: tuple[ClampedMask, ...] = ()
    measured: bool = True
    per_channel: tuple[PerChannel, ...] = ()

    def __repr__(self) -> str:
        int8 = sum(node.is_int8 for node in self.nodes)
        return (
            f"QuantizedModel({int8} of {len(self.nodes)} quantizable nodes in INT8, the rest in {self.high_precision})"
        )


def quantize_by_table(
    model: Model,
    matched: MatchedTable,
    nodes_to_exclude: Sequence[str] = (),
    attention: bool = False,
    high_precision: HighPrecision | None = None,
    amax: Mapping[str, float] | None = None,
    target: Target | None = None,
) -> QuantizedModel:
    """Quantize a float model by the ranges of a table, and by its recipe if it has one.

    Args:
        model: the float model.
        matched: the table, matched with the model; see `matched_table`.
        nodes_to_exclude: nodes that are not quantized, beside those that the table excludes.
        attention: also quantize the MatMuls of attention, even if the table does not.
        high_precision: what runs around INT8; None for that of the table, or "fp32".
        amax: the largest magnitude of each float32 activation, beside those that the table knows.
        target: the builder that the model is meant for; None for that of the table, or "trt".

    Raises:
        ModelError, TableError, UsageError: see `insert_qdq` and `convert_to_float16`.
    """
    table, recipe = matched.table, matched.table.recipe
    if recipe is None:
        qdq = insert_qdq(model, table, nodes_to_exclude, attention)
        precision = high_precision or "fp32"
    else:
        excluded = (*recipe.nodes_to_exclude, *nodes_to_exclude)
        qdq = insert_qdq(model, table, excluded, attention or recipe.attention, weight_only=recipe.weight_only)
        precision = high_precision or recipe.high_precision
        if recipe.bias_corrections is not None:
            corrections = recipe.bias_corrections.items()
            qdq, _ = correct_bias(qdq, {name: np.array(shift, np.float32) for name, shift in corrections})
        if recipe.cache_scales:
            quantize_cache(qdq.model, decoder_layout(model), recipe.cache_scales)
        if recipe.magnitudes:
            amax = _larger(recipe.magnitudes, amax or {})
    if precision == "fp32":
        return QuantizedModel(qdq.model, qdq.plan, matched.report, "fp32")
    form = convert_for_target(qdq, amax, target or (recipe.target if recipe else "trt"))
    converted = form.converted
    return QuantizedModel(
        converted.model,
        qdq.plan,
        matched.report,
        "fp16",
        converted.fp32_nodes,
        converted.clamped_masks,
        measured=amax is not None,
        per_channel=form.per_channel,
    )


def _larger(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    names = {**first, **second}
    return {name: max(amax[name] for amax in (first, second) if name in amax) for name in names}
