"""Builds INT8 models of a float model by recipes; what several recipes have in common is computed once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Protocol

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.macs import count_macs
from trt_ptq.calibration.measurements.bias_error import measure_bias_error
from trt_ptq.calibration.measurements.magnitudes import combine_amax
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_recipe import HeadScales
from trt_ptq.choices import HighPrecision, Technique
from trt_ptq.errors import ModelError
from trt_ptq.fp16.attention_masks import ClampedMask
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.fp16.target_form import convert_for_target
from trt_ptq.language_models.decoder import decoder_layout, is_decoder
from trt_ptq.language_models.kv_cache.int8_cache import quantize_cache
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.factored import PerChannel
from trt_ptq.qdq.float_names import CORRECTED
from trt_ptq.qdq.insert import TENSOR_KINDS, QdqModel, TensorKind, insert_qdq
from trt_ptq.qdq.ranges.layer_methods import activation_sources
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.recipe import Recipe
from trt_ptq.transforms.bias_correction import correct_bias
from trt_ptq.tuning.candidates.calibrated_models import (
    CalibratedModel,
    CalibratedModels,
    CalibrationData,
    model_key,
    rounding_key,
)
from trt_ptq.tuning.candidates.layer_kinds import kinds_of_layers
from trt_ptq.types import Array

_logger = logging.getLogger(__name__)
_MAX_BUILT = 8  # a model whose output error was measured is often scored a few candidates later; weights are lazy


@dataclass(frozen=True)
class QuantizedCandidate:
    """An INT8 model.

    Attributes:
        qdq: the Q/DQ model and its plan.
        high_precision: what runs around INT8.
        fp32_nodes: nodes that are FP32 in an FP16 model.
        clamped_masks: mask constants that are smaller in an FP16 model.
        warning: why FP16 was not possible; empty if it was.
        per_channel: for target "rtx": convolutions that are not in the factored form.
    """

    qdq: QdqModel
    high_precision: HighPrecision
    fp32_nodes: tuple[Fp32Node, ...] = ()
    warning: str = ""
    clamped_masks: tuple[ClampedMask, ...] = ()
    per_channel: tuple[PerChannel, ...] = ()


@dataclass(frozen=True)
class TransformSummary:
    """In how many places of a model a technique applies, and what it did there."""

    num_sites: int
    note: str


class Magnitudes(Protocol):
    """Computes the largest magnitudes in a float model after a technique; see `magnitudes` of the calibration step."""

    def __call__(self, model: Model, before: Mapping[str, float], changed: Collection[str]) -> dict[str, float]: ...


class CandidateBuilder:
    """Builds the INT8 model of any recipe.

    What is needed `roughly` takes the effect of the last technique from a few samples: one without a use costs little.

    Args:
        models: the float models that techniques lead to, with their ranges.
        data: the data that they are calibrated with.
        magnitudes: computes the largest magnitude of each tensor of a float model.
    """

    def __init__(self, models: CalibratedModels, data: CalibrationData, magnitudes: Magnitudes) -> None:
        self._models = models
        self.data = data
        self._magnitudes = magnitudes
        self._amax_of = cache(self._measure_amax)
        self._with_amax: set[Recipe] = set()
        self._bias_error_of = cache(self._measure_bias_error)
        self._macs_of = cache(self._count_macs)
        self._built = lru_cache(_MAX_BUILT)(self._insert_qdq)

    def calibrated_model(self, recipe: Recipe) -> CalibratedModel:
        """The float model that is quantized, after the techniques of `recipe` that change it, with its statistics."""
        return self._models.calibrated(recipe)

    def table(self, recipe: Recipe) -> CalibrationTable:
        """The activation ranges by the method of `recipe`."""
        return self._models.table(recipe)

    def amax(self, recipe: Recipe) -> dict[str, float]:
        """The largest magnitudes in the float model that is quantized; see `measure_amax`."""
        return self._amax_of(model_key(recipe))

    @property
    def cache_scales(self) -> dict[str, HeadScales]:
        """The scales of an INT8 cache of keys and values."""
        return self._models.cache_scales

    def float16_amax(self, recipe: Recipe) -> dict[str, float]:
        """`amax`, raised for tensors that bias correction shifts, also where it adds an Add."""
        amax = self.amax(recipe)
        shifted = {
            name: amax[name] + float(np.abs(error).max(initial=0))
            for name, error in (self.bias_corrections(recipe) or {}).items()
            if name in amax
        }
        return {**amax, **shifted, **{f"{name}{CORRECTED}": value for name, value in shifted.items()}}

    def bias_corrections(self, recipe: Recipe, *, roughly: bool = False) -> dict[str, Array] | None:
        """The corrections of the biases by layer; None without the technique. See `measure_bias_error`."""
        if "bias-correction" not in recipe.techniques:
            return None
        is_last = recipe.techniques[-1] == "bias-correction"
        return self._bias_error_of(rounding_key(recipe), roughly=roughly and is_last)

    def changes_model(self, recipe: Recipe) -> bool:
        """Whether techniques of `recipe` change the float model, or its weights where they are quantized."""
        return self._models.are_changed(recipe)

    def stored_weights(self, recipe: Recipe) -> StoredWeights | None:
        """The weights that GPTQ rounded; None without the technique."""
        return self._models.stored_weights(recipe)

    def build_for_search(
        self, recipe: Recipe, kinds: tuple[TensorKind, ...] = TENSOR_KINDS, *, roughly: bool = False
    ) -> ir.Model:
        """The model of `recipe` with the rest in FP32: as fast as the float model on a CPU, unlike FP16's rounding.

        Args:
            recipe: the recipe of the model.
            kinds: what is in INT8: weights, activations or both.
            roughly: see the class.
        """
        return self._with_fp32(recipe, kinds, roughly=roughly).model

    def build(self, recipe: Recipe) -> QuantizedCandidate:
        """Build the model of `recipe`."""
        if recipe.high_precision == "fp32":
            return QuantizedCandidate(self._with_fp32(recipe), "fp32")
        qdq = self._insert_qdq(recipe)
        try:
            form = convert_for_target(qdq, self.float16_amax(recipe), recipe.target)
        except ModelError as error:  # the model is half converted by then
            warning = f"nodes that are not quantized stay in FP32: {error}"
            return QuantizedCandidate(self._with_fp32(recipe), "fp32", warning=warning)
        converted = form.converted
        return QuantizedCandidate(
            QdqModel(converted.model, qdq.plan),
            "fp16",
            converted.fp32_nodes,
            clamped_masks=converted.clamped_masks,
            per_channel=form.per_channel,
        )

    def kinds_of_layers(self, recipe: Recipe) -> list[tuple[str, ...]]:
        """The layers of the float model that is quantized by kind; see `kinds_of_layers`."""
        calibrated = self.calibrated_model(recipe)
        graph = calibrated.model.to_ir().graph
        return kinds_of_layers(activation_sources(graph, calibrated.statistics, recipe.attention))

    def macs(self, recipe: Recipe) -> dict[str, int]:
        """Multiply-accumulates by layer, for the first batch; empty where they cannot be counted."""
        return self._macs_of(model_key(recipe))

    def summarize(self, recipe: Recipe, technique: Technique, *, roughly: bool = False) -> TransformSummary:
        """Summarize what `technique`, the last one of `recipe`, does to the model.

        Bias correction is not measured `roughly` for decoders, so it is tried only where it is asked for: their linear
        layers have no biases, and the means of their errors are noise. It raised the output error of SmolLM2-135M, and
        took longer than its calibration.
        """
        if technique == "bias-correction" and roughly and is_decoder(self._models.model(recipe)):
            return TransformSummary(0, "not tried for language models")
        if technique == "bias-correction":
            errors = self.bias_corrections(recipe, roughly=roughly) or {}
            corrected = sum(bool(error.any()) for error in errors.values())
            return TransformSummary(corrected, f"{corrected} of {len(errors)} layers corrected")
        if technique == "gptq":
            weights = self.stored_weights(recipe) or {}
            return TransformSummary(len(weights), f"{len(weights)} weights rounded")
        transformed = self._models.transformed(recipe)
        assert transformed is not None
        applied, skipped = transformed.applied, transformed.skipped
        counts = f"applied in {len(applied)} places, skipped in {len(skipped)}"
        return TransformSummary(len(applied), "; ".join([counts, *map(str, (*applied, *skipped))]))

    def _with_fp32(
        self, recipe: Recipe, kinds: tuple[TensorKind, ...] = TENSOR_KINDS, *, roughly: bool = False
    ) -> QdqModel:
        """The Q/DQ model with the rest in FP32, built once for all orders of the nodes in `recipe`."""
        excluded, weight_only = map(sorted, (recipe.nodes_to_exclude, recipe.weight_only))
        in_order = {
            "nodes_to_exclude": tuple(excluded),
            "weight_only": tuple(weight_only),
            "high_precision": "fp32",
            "target": "trt",
        }
        return self._built(recipe.model_copy(update=in_order), kinds, roughly=roughly)

    def _insert_qdq(
        self, recipe: Recipe, kinds: tuple[TensorKind, ...] = TENSOR_KINDS, *, roughly: bool = False
    ) -> QdqModel:
        how = "roughly " if roughly else ""
        _logger.debug("%sbuilding the INT8 model of %s in %r", how, " and ".join(kinds), recipe)
        model, table = self._models.model(recipe), self._models.table(recipe, roughly=roughly)
        weights = self._models.stored_weights(recipe)
        qdq = insert_qdq(model, table, recipe.nodes_to_exclude, recipe.attention, kinds, recipe.weight_only, weights)
        corrections = self.bias_corrections(recipe, roughly=roughly)
        if corrections is not None:
            qdq = correct_bias(qdq, corrections)[0]
        if recipe.kv_cache == "int8" and "activations" in kinds:
            quantize_cache(qdq.model, decoder_layout(model), self.cache_scales)
        return qdq

    def _count_macs(self, key: Recipe) -> dict[str, int]:
        feeds = next(iter(self.data.all)).feeds
        try:
            return count_macs(self._models.model(key), {name: array.shape for name, array in feeds.items()})
        except ModelError:
            return {}

    def _measure_amax(self, key: Recipe) -> dict[str, float]:
        calibrated = self.calibrated_model(key)
        if not key.techniques:
            measured = self._magnitudes(calibrated.model, {}, ())
        else:
            before, changed = self._models.changed_since(key, self._with_amax)
            if changed is None:
                return self._amax_of(before)
            measured = self._magnitudes(calibrated.model, self._amax_of(before), changed)
        self._with_amax.add(key)
        return combine_amax(measured, calibrated.statistics)

    def _measure_bias_error(self, key: Recipe, *, roughly: bool) -> dict[str, Array]:
        few = self.data.few
        source = (few.second or few.first) if roughly else self.data.all  # a mean fits its own samples
        model, table, weights = self._models.model(key), self._models.table(key), self._models.stored_weights(key)
        return measure_bias_error(model, table, source, key.attention, stored_weights=weights)
