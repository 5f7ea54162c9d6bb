"""The float models that techniques lead to, with their statistics: on all data, or roughly on a few samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Protocol

from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.calibrators.table.table_recipe import HeadScales
from trt_ptq.choices import Nonfinite, Technique
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.kv_cache.cache_scales import measure_cache_scales
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_mapped
from trt_ptq.qdq.ranges.layer_methods import activation_sources, with_layer_methods
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.recipe import Recipe
from trt_ptq.transforms.alpha_search import apply_smoothquant
from trt_ptq.transforms.equalization import equalize
from trt_ptq.transforms.result import TransformResult
from trt_ptq.transforms.rotation.rotate import rotate_stream
from trt_ptq.transforms.rounded_weights import round_weights
from trt_ptq.tuning.estimating.few_samples import FewSamples
from trt_ptq.types import BatchSource

_NO_CHOICES: Mapping[str, object] = {
    "nodes_to_exclude": (),
    "weight_only": (),
    "high_precision": "fp32",
    "kv_cache": "float",
    "target": "trt",
}
BEFORE_CALIBRATION: tuple[Technique, ...] = ("equalization", "rotation", "smoothquant")  # they change the float model


@dataclass(frozen=True)
class CalibratedModel:
    """A float model with its statistics.

    Attributes:
        model: the model that was given, or one with the same function after techniques changed it.
        statistics: its statistics.
        transformed: what the last technique did to it; None if none was applied.
    """

    model: Model
    statistics: Statistics
    transformed: TransformResult | None = None


@dataclass(frozen=True)
class CalibrationData:
    """The data that models are calibrated with: `all` of it, and a `few` samples of it for trials."""

    all: BatchSource
    few: FewSamples


class Calibrate(Protocol):
    """Computes the statistics of a float model after a technique; see `recalibrate`."""

    def __call__(
        self, model: Model, before: Statistics, changed: Collection[str], source: BatchSource
    ) -> Statistics: ...


class CalibratedModels:
    """Applies techniques to the float model, and calibrates what they change; each once.

    Args:
        plain: the float model, calibrated.
        data: the data to calibrate with.
        calibrate: computes the statistics of a float model that a technique changed.
        folder: where changed float models are written.
        nonfinite: what becomes of NaN and infinite values when weights are rounded.
        memory_limit: bytes that rounding weights may take; None for no limit.
    """

    def __init__(
        self,
        plain: CalibratedModel,
        data: CalibrationData,
        calibrate: Calibrate,
        folder: Path,
        nonfinite: Nonfinite = "refuse",
        memory_limit: int | None = None,
    ) -> None:
        self._plain = plain
        self._data = data
        self._calibrate = calibrate
        self._folder = folder
        self._nonfinite = nonfinite
        self._memory_limit = memory_limit
        self._number = count()
        self._transformed_of = cache(self._transform)
        self._collected: set[Recipe] = set()  # on all data
        self._statistics_of = cache(self._collect)
        self._table_of = cache(self._derive_table)
        self._weights_of = cache(self._round_weights)

    def model(self, recipe: Recipe) -> Model:
        """The float model that is quantized: after the techniques of `recipe` that change it."""
        return self._transformed_of(model_key(recipe))[0]

    def transformed(self, recipe: Recipe) -> TransformResult | None:
        """What the last technique of `recipe` that changes the float model did; None without any."""
        return self._transformed_of(model_key(recipe))[1]

    def calibrated(self, recipe: Recipe) -> CalibratedModel:
        """The float model that is quantized, with its statistics on all data."""
        return CalibratedModel(
            self.model(recipe), self._statistics_of(model_key(recipe), roughly=False), self.transformed(recipe)
        )

    def table(self, recipe: Recipe, *, roughly: bool = False) -> CalibrationTable:
        """The activation ranges by the methods of `recipe`.

        Args:
            recipe: the recipe.
            roughly: measure the tensors that its last technique changed on a few samples only.
        """
        key = range_key(recipe)
        last_changes_ranges = recipe.techniques[-1:] == key.techniques[-1:]
        return self._table_of(key, roughly=roughly and last_changes_ranges)

    def stored_weights(self, recipe: Recipe) -> StoredWeights | None:
        """The weights that GPTQ rounded; None without the technique. See `round_weights`."""
        return self._weights_of(model_key(recipe)) if "gptq" in recipe.techniques else None

    @cached_property
    def cache_scales(self) -> dict[str, HeadScales]:
        """The scales of an INT8 cache of keys and values, which no technique changes."""
        model = self._plain.model
        return measure_cache_scales(model, self._data.all, decoder_layout(model))

    def are_changed(self, recipe: Recipe) -> bool:
        """Whether techniques of `recipe` change the float model, or its weights where they are quantized."""
        return self.model(recipe) is not self._plain.model or bool(self.stored_weights(recipe))

    def changed_since(self, key: Recipe, known: Collection[Recipe]) -> tuple[Recipe, frozenset[str] | None]:
        """What the techniques of `key` changed since the last model before it that is `known`, or the plain one.

        Returns:
            The key of that model, and the names of the tensors that changed since; None if no technique was applied.
        """
        changed: frozenset[str] | None = None
        before = start = model_key(key)
        while before.techniques and (before == start or before not in known):
            transformed = self.transformed(before)
            if transformed is not None and transformed.applied:
                changed = (changed or frozenset()) | transformed.changed
            before = without_last(before)
        return before, changed

    def _transform(self, key: Recipe) -> tuple[Model, TransformResult | None]:
        if not key.techniques:
            return self._plain.model, None
        before = self.model(without_last(key))
        if key.techniques[-1] == "equalization":
            transformed = equalize(before)
        elif key.techniques[-1] == "rotation":
            transformed = rotate_stream(before)
        else:
            transformed = apply_smoothquant(before, self._data.all)
        if not transformed.applied:
            return before, transformed
        path = self._folder / f"{next(self._number)}.onnx"
        save_mapped(transformed.model, path)
        return load_model(path), transformed

    def _collect(self, key: Recipe, *, roughly: bool) -> Statistics:
        if not key.techniques:
            return self._plain.statistics
        before, changed = self.changed_since(key, self._collected)
        statistics = self._statistics_of(before, roughly=False)
        if changed is not None:
            source = self._data.few.first if roughly else self._data.all
            statistics = self._calibrate(self.model(key), statistics, changed, source)
        if not roughly:
            self._collected.add(key)
        return statistics

    def _derive_table(self, key: Recipe, *, roughly: bool) -> CalibrationTable:
        statistics = self._statistics_of(model_key(key), roughly=roughly)
        table = derive_table(statistics, key.range_method())
        if not key.layer_methods:
            return table
        sources = activation_sources(self.model(key).to_ir().graph, statistics, key.attention)
        return with_layer_methods(table, statistics, sources, key.methods_by_layer())

    def _round_weights(self, key: Recipe) -> StoredWeights:
        file = self._folder / f"{next(self._number)}.int8"
        return round_weights(
            self.model(key), self._data.all, file, nonfinite=self._nonfinite, limit_bytes=self._memory_limit
        )


def without_last(key: Recipe) -> Recipe:
    """`key` without its last technique."""
    return key.model_copy(update={"techniques": key.techniques[:-1]})


def model_key(recipe: Recipe) -> Recipe:
    """The part of a recipe that determines the float model that is quantized: not the range methods."""
    return range_key(recipe).model_copy(update={"method": METHODS["percentile"].name, "layer_methods": ()})


def rounding_key(recipe: Recipe) -> Recipe:
    """The part of a recipe that determines the INT8 weights and the ranges, whatever is quantized."""
    key = range_key(recipe)
    return key.model_copy(update={"techniques": (*key.techniques, "gptq")}) if "gptq" in recipe.techniques else key


def range_key(recipe: Recipe) -> Recipe:
    """The part of a recipe that determines the float model that is quantized, and its ranges."""
    techniques = tuple(technique for technique in recipe.techniques if technique in BEFORE_CALIBRATION)
    return recipe.model_copy(update={"techniques": techniques, **_NO_CHOICES})
