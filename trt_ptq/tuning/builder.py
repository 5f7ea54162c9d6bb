"""INT8 models of one float model by recipes; what several recipes have in common is done once."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np

from trt_ptq.analysis.macs import count_macs
from trt_ptq.calibration.measurements.bias_error import measure_bias_error
from trt_ptq.calibration.measurements.magnitudes import combine_amax
from trt_ptq.calibrators.methods import METHODS, RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.data.subset import evenly_spaced
from trt_ptq.errors import DataError, ModelError, OutputError
from trt_ptq.fp16.convert import HighPrecision, convert_to_float16
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import TENSOR_KINDS, QdqModel, TensorKind, insert_qdq
from trt_ptq.recipe import Recipe, Technique
from trt_ptq.sensitivity.measure import Ranking, rank_layers
from trt_ptq.transforms.alpha_search import smooth
from trt_ptq.transforms.bias_correction import CORRECTED, correct_bias
from trt_ptq.transforms.equalization import equalize
from trt_ptq.transforms.result import TransformResult
from trt_ptq.tuning.layer_search import by_worth
from trt_ptq.tuning.output_deviation import OutputDeviation
from trt_ptq.types import Array, BatchSource, ProgressCallback, no_progress

FEW = 2  # batches to rank layers on
MANY = 8  # batches to rank layers on where each of a few ranks them otherwise
AGREEING = 0.85  # of the worst layers; two batches of a language model have 0.9 in common, of rendered text 0.7
BEFORE: tuple[Technique, ...] = ("equalization", "smoothquant")  # repairs of the float model, before it is calibrated


@dataclass(frozen=True)
class CalibratedModel:
    """The float model that a recipe starts from, equal in function to the one given; its statistics, and what the
    last repair did to it."""

    model: Model
    statistics: Statistics
    transformed: TransformResult | None = None


@dataclass(frozen=True)
class QuantizedCandidate:
    """An INT8 model, what the rest of it is at last, the nodes of it that are float32 in a float16 rest, and why
    there is no float16, if it could not be had."""

    qdq: QdqModel
    high_precision: HighPrecision
    fp32_nodes: tuple[Fp32Node, ...] = ()
    warning: str = ""


@dataclass(frozen=True)
class TransformSummary:
    """How many places of a model a repair fits, and what it did there."""

    places: int
    note: str


class CandidateBuilder:
    """Converts a float model by any recipe.

    `calibration` is what `plain` was calibrated with. `calibrate` takes the statistics of a model that repairs have
    changed, which lies in `folder`; `magnitudes` is `measure_amax` of any.
    """

    def __init__(
        self,
        plain: CalibratedModel,
        calibration: BatchSource,
        calibrate: Callable[[Model], Statistics],
        magnitudes: Callable[[Model], dict[str, float]],
        folder: Path,
        progress: ProgressCallback = no_progress,
    ) -> None:
        self._plain = plain
        self._calibration = calibration
        self._calibrate = calibrate
        self._magnitudes = magnitudes
        self._folder = folder
        self._number = count()
        self._progress = progress
        self._calibrated_model_of = cache(self._prepare)
        self._table_of = cache(self._choose)
        self._amax_of = cache(self._measure_amax)
        self._bias_error_of = cache(self._measure_bias_error)
        self._distance_of = cache(self._measure_distance)
        self._ranking_of = cache(self._rank)
        self._macs_of = cache(self._count_macs)
        self._distance = OutputDeviation(plain.model, calibration)

    def calibrated_model(self, recipe: Recipe) -> CalibratedModel:
        """What `recipe` starts from."""
        return self._calibrated_model_of(_model_key(recipe))

    def table(self, recipe: Recipe) -> CalibrationTable:
        """The ranges by the method of `recipe`."""
        return self._table_of(_range_key(recipe))

    def amax(self, recipe: Recipe) -> dict[str, float]:
        """Largest magnitudes in the float model that `recipe` starts from; see `measure_amax`."""
        return self._amax_of(_model_key(recipe))

    def make(self, recipe: Recipe, parts: tuple[TensorKind, ...] = TENSOR_KINDS) -> QuantizedCandidate:
        """The model of `recipe`, or with only weights or only activations in INT8."""
        qdq = self._insert(recipe, parts)
        if recipe.high_precision == "fp32":
            return QuantizedCandidate(qdq, "fp32")
        try:
            converted = convert_to_float16(qdq.model, self._amax_of_corrected(recipe))
        except ModelError as error:  # which leaves the model used up
            return QuantizedCandidate(
                self._insert(recipe, parts), "fp32", warning=f"what is not INT8 stays in FP32: {error}"
            )
        return QuantizedCandidate(QdqModel(converted.model, qdq.plan), "fp16", converted.fp32_nodes)

    def distance(self, recipe: Recipe) -> float:
        """See `OutputDeviation`."""
        return self._distance_of(recipe)

    def ranked_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> dict[str, float]:
        """`distance` by each of `methods`, the least first; of equal ones, that which comes first.

        Of plain Q/DQ: without bias correction, the rest in float32. Infinite where a model fails.
        """
        return self._ranking_of(
            _model_key(recipe).model_copy(update={"nodes_to_exclude": recipe.nodes_to_exclude}), methods
        )

    def ranked_layers(self, recipe: Recipe) -> list[str]:
        """The layers that `recipe` puts in INT8, see `by_worth`."""
        model, table = self.calibrated_model(recipe).model, self.table(recipe)

        def ranked_on(batches: int) -> Ranking:
            some = evenly_spaced(self._calibration, batches)
            return rank_layers(model, table, some, recipe.attention, recipe.nodes_to_exclude, self._progress)

        ranking = ranked_on(FEW)
        if ranking.agreement < AGREEING and (self._calibration.total or MANY) > FEW:
            with suppress(OutputError):  # no room for as many activations
                ranking = ranked_on(MANY)
        return by_worth(ranking.costs, self.macs(recipe))

    def macs(self, recipe: Recipe) -> dict[str, int]:
        """Multiply-accumulates of each layer, for the first batch; none where they cannot be counted."""
        return self._macs_of(_model_key(recipe))

    def fit(self, recipe: Recipe, technique: Technique) -> TransformSummary:
        """Where `technique`, the last one of `recipe`, applies."""
        if technique == "bias-correction":
            shifts = self._bias_error_of(_range_key(recipe))
            return TransformSummary(sum(bool(shift.any()) for shift in shifts.values()), f"of {len(shifts)} layers")
        transformed = self.calibrated_model(recipe).transformed
        assert transformed is not None
        places = f"{len(transformed.applied)} places, {len(transformed.skipped)} not"
        return TransformSummary(
            len(transformed.applied), "; ".join([places, *map(str, (*transformed.applied, *transformed.skipped))])
        )

    def _insert(self, recipe: Recipe, parts: tuple[TensorKind, ...]) -> QdqModel:
        model = self.calibrated_model(recipe).model
        qdq = insert_qdq(model, self.table(recipe), recipe.nodes_to_exclude, recipe.attention, parts)
        if "bias-correction" not in recipe.techniques:
            return qdq
        return correct_bias(qdq, self._bias_error_of(_range_key(recipe)))[0]

    def _amax_of_corrected(self, recipe: Recipe) -> dict[str, float]:
        """`amax`, and that of what a bias correction shifts, be it by an Add of its own."""
        amax = self.amax(recipe)
        if "bias-correction" not in recipe.techniques:
            return amax
        shifted = {
            name: amax[name] + float(np.abs(shift).max(initial=0))
            for name, shift in self._bias_error_of(_range_key(recipe)).items()
            if name in amax
        }
        return {**amax, **shifted, **{f"{name}{CORRECTED}": value for name, value in shifted.items()}}

    def _prepare(self, range_key: Recipe) -> CalibratedModel:
        if not range_key.techniques:
            return self._plain
        before = self.calibrated_model(range_key.model_copy(update={"techniques": range_key.techniques[:-1]}))
        if range_key.techniques[-1] == "equalization":
            transformed = equalize(before.model)
        else:
            transformed = smooth(before.model, self._calibration, METHODS["percentile"])
        if not transformed.applied:
            return CalibratedModel(before.model, before.statistics, transformed)
        path = self._folder / f"{next(self._number)}.onnx"
        save_model(transformed.model, path)
        model = load_model(path)
        return CalibratedModel(model, self._calibrate(model), transformed)

    def _choose(self, range_key: Recipe) -> CalibrationTable:
        return derive_table(self.calibrated_model(range_key).statistics, range_key.range_method())

    def _measure_distance(self, recipe: Recipe) -> float:
        return self._distance.of(self.make(recipe).qdq.model)

    def _rank(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> dict[str, float]:
        found = {}
        for method in self._progress(methods, "Comparing range methods", len(methods)):
            try:
                found[method.name] = self.distance(recipe.model_copy(update={"method": method.name}))
            except (DataError, ModelError):
                found[method.name] = math.inf
        return dict(sorted(found.items(), key=lambda one: one[1]))

    def _count_macs(self, range_key: Recipe) -> dict[str, int]:
        feeds = next(iter(self._calibration)).feeds
        try:
            return count_macs(
                self.calibrated_model(range_key).model, {name: array.shape for name, array in feeds.items()}
            )
        except ModelError:
            return {}

    def _measure_amax(self, range_key: Recipe) -> dict[str, float]:
        calibrated_model = self.calibrated_model(range_key)
        return combine_amax(self._magnitudes(calibrated_model.model), calibrated_model.statistics)

    def _measure_bias_error(self, range_key: Recipe) -> dict[str, Array]:
        return measure_bias_error(
            self.calibrated_model(range_key).model, self.table(range_key), self._calibration, range_key.attention
        )


def _model_key(recipe: Recipe) -> Recipe:
    """What of a recipe decides on the float model: not the method."""
    return _range_key(recipe).model_copy(update={"method": METHODS["percentile"].name})


def _range_key(recipe: Recipe) -> Recipe:
    """What of a recipe decides on the float model and the ranges."""
    before = tuple(one for one in recipe.techniques if one in BEFORE)
    return recipe.model_copy(update={"techniques": before, "nodes_to_exclude": (), "high_precision": "fp32"})
