"""INT8 models of one float model by recipes; what several recipes have in common is done once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np

from trt_ptq.accuracy.distance import Distance
from trt_ptq.accuracy.ranges import choose_ranges
from trt_ptq.accuracy.search import by_worth
from trt_ptq.accuracy.sensitivity import Ranking, rank_layers
from trt_ptq.accuracy.smoothquant import smooth
from trt_ptq.calibrators.batches import Array, BatchSource, Track, untracked
from trt_ptq.calibrators.errors import DataError, ModelError, OutputError
from trt_ptq.calibrators.methods import METHODS, RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.table import CalibrationTable, derive_table
from trt_ptq.collect.magnitudes import known_amax
from trt_ptq.collect.shifts import measure_shifts
from trt_ptq.data.split import FewBatches
from trt_ptq.graph.bias import CORRECTED, correct_bias
from trt_ptq.graph.equalization import equalize
from trt_ptq.graph.float16_range import KeptNode
from trt_ptq.graph.half import HighPrecision, halve
from trt_ptq.graph.macs import count_macs
from trt_ptq.graph.model import Model, load_model
from trt_ptq.graph.prepared import Prepared
from trt_ptq.graph.qdq import PARTS, Part, QdqModel, insert_qdq
from trt_ptq.graph.recipe import AUTO, Recipe, Repair, Step
from trt_ptq.graph.save import save_model

FEW = 2  # batches to rank layers and to choose ranges on
MANY = 8  # batches to rank layers on where each of a few ranks them otherwise
AGREEING = 0.85  # of the worst layers; two batches of a language model have 0.9 in common, of rendered text 0.7
BEFORE: tuple[Repair, ...] = ("equalize", "smooth")  # repairs of the float model, before it is calibrated


@dataclass(frozen=True)
class Ground:
    """The float model that a recipe starts from, equal in function to the one given; its statistics, and what the
    last repair did to it."""

    model: Model
    statistics: Statistics
    prepared: Prepared | None = None


@dataclass(frozen=True)
class Candidate:
    """An INT8 model, what the rest of it is at last, the nodes of it that are float32 in a float16 rest, and why
    there is no float16, if it could not be had."""

    qdq: QdqModel
    high_precision: HighPrecision
    kept: tuple[KeptNode, ...] = ()
    warning: str = ""


@dataclass(frozen=True)
class Fit:
    """How many places of a model a repair fits, and what it did there."""

    places: int
    note: str


class Workshop:
    """Converts a float model by any recipe.

    `calibration` is what `plain` was calibrated with. `calibrate` takes the statistics of a model that repairs have
    changed, which lies in `folder`; `magnitudes` is `measure_amax` of any.
    """

    def __init__(
        self,
        plain: Ground,
        calibration: BatchSource,
        calibrate: Callable[[Model], Statistics],
        magnitudes: Callable[[Model], dict[str, float]],
        folder: Path,
        track: Track = untracked,
    ) -> None:
        self._plain = plain
        self._calibration = calibration
        self._calibrate = calibrate
        self._magnitudes = magnitudes
        self._folder = folder
        self._number = count()
        self._track = track
        self._ground_of = cache(self._prepare)
        self._table_of = cache(self._choose)
        self._amax_of = cache(self._measure_amax)
        self._shifts_of = cache(self._measure_shifts)
        self._distance_of = cache(self._measure_distance)
        self._ranking_of = cache(self._rank)
        self._macs_of = cache(self._count_macs)
        self._distance = Distance(plain.model, calibration)

    def ground(self, recipe: Recipe) -> Ground:
        """What `recipe` starts from."""
        return self._ground_of(_foundation(recipe))

    def table(self, recipe: Recipe) -> CalibrationTable:
        """The ranges by the method of `recipe`."""
        return self._table_of(_basis(recipe))

    def amax(self, recipe: Recipe) -> dict[str, float]:
        """Largest magnitudes in the float model that `recipe` starts from; see `measure_amax`."""
        return self._amax_of(_foundation(recipe))

    def make(self, recipe: Recipe, parts: tuple[Part, ...] = PARTS) -> Candidate:
        """The model of `recipe`, or with only weights or only activations in INT8."""
        qdq = self._insert(recipe, parts)
        if recipe.high_precision == "fp32":
            return Candidate(qdq, "fp32")
        try:
            half = halve(qdq.model, self._amax_of_corrected(recipe))
        except ModelError as error:  # which leaves the model used up
            return Candidate(self._insert(recipe, parts), "fp32", warning=f"what is not INT8 stays in FP32: {error}")
        return Candidate(QdqModel(half.model, qdq.plan), "fp16", half.kept)

    def distance(self, recipe: Recipe) -> float:
        """See `Distance`."""
        return self._distance_of(recipe)

    def ranked_methods(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> dict[str, float]:
        """`distance` by each of `methods`, the least first; of equal ones, that which comes first.

        Of plain Q/DQ: without bias correction, the rest in float32. Infinite where a model fails.
        """
        return self._ranking_of(_foundation(recipe).model_copy(update={"keep_float": recipe.keep_float}), methods)

    def ranked_layers(self, recipe: Recipe) -> list[str]:
        """The layers that `recipe` puts in INT8, see `by_worth`."""
        model, table = self.ground(recipe).model, self.table(recipe)

        def ranked_on(batches: int) -> Ranking:
            some = FewBatches(self._calibration, batches)
            return rank_layers(model, table, some, recipe.attention, recipe.keep_float, self._track)

        ranking = ranked_on(FEW)
        if ranking.agreement < AGREEING and (self._calibration.total or MANY) > FEW:
            with suppress(OutputError):  # no room for as many activations
                ranking = ranked_on(MANY)
        return by_worth(ranking.costs, self.macs(recipe))

    def macs(self, recipe: Recipe) -> dict[str, int]:
        """Multiply-accumulates of each layer, for the first batch; none where they cannot be counted."""
        return self._macs_of(_foundation(recipe))

    def fit(self, recipe: Recipe, step: Step) -> Fit:
        """Where the latest step to `recipe` fits."""
        if step == AUTO:
            methods = Counter(self.table(recipe).methods.values())
            return Fit(methods.total(), ", ".join(f"{method}: {count} tensors" for method, count in methods.items()))
        if step == "bias":
            shifts = self._shifts_of(_basis(recipe))
            return Fit(sum(bool(shift.any()) for shift in shifts.values()), f"of {len(shifts)} layers")
        prepared = self.ground(recipe).prepared
        assert prepared is not None
        places = f"{len(prepared.applied)} places, {len(prepared.skipped)} not"
        return Fit(len(prepared.applied), "; ".join([places, *map(str, (*prepared.applied, *prepared.skipped))]))

    def _insert(self, recipe: Recipe, parts: tuple[Part, ...]) -> QdqModel:
        model = self.ground(recipe).model
        qdq = insert_qdq(model, self.table(recipe), recipe.keep_float, recipe.attention, parts)
        return correct_bias(qdq, self._shifts_of(_basis(recipe)))[0] if "bias" in recipe.repairs else qdq

    def _amax_of_corrected(self, recipe: Recipe) -> dict[str, float]:
        """`amax`, and that of what a bias correction shifts, be it by an Add of its own."""
        amax = self.amax(recipe)
        if "bias" not in recipe.repairs:
            return amax
        shifted = {
            name: amax[name] + float(np.abs(shift).max(initial=0))
            for name, shift in self._shifts_of(_basis(recipe)).items()
            if name in amax
        }
        return {**amax, **shifted, **{f"{name}{CORRECTED}": value for name, value in shifted.items()}}

    def _prepare(self, basis: Recipe) -> Ground:
        if not basis.repairs:
            return self._plain
        before = self.ground(basis.model_copy(update={"repairs": basis.repairs[:-1]}))
        if basis.repairs[-1] == "equalize":
            prepared = equalize(before.model)
        else:
            prepared = smooth(before.model, self._calibration, METHODS["percentile"])
        if not prepared.applied:
            return Ground(before.model, before.statistics, prepared)
        path = self._folder / f"{next(self._number)}.onnx"
        save_model(prepared.model, path)
        model = load_model(path)
        return Ground(model, self._calibrate(model), prepared)

    def _choose(self, basis: Recipe) -> CalibrationTable:
        ground, method = self.ground(basis), basis.range_method()
        if method is not None:
            return derive_table(ground.statistics, method)
        few = FewBatches(self._calibration, FEW)
        return choose_ranges(ground.model, ground.statistics, few, basis.attention, track=self._track)

    def _measure_distance(self, recipe: Recipe) -> float:
        return self._distance.of(self.make(recipe).qdq.model)

    def _rank(self, recipe: Recipe, methods: tuple[RangeMethod, ...]) -> dict[str, float]:
        found = {}
        for method in self._track(methods, "Comparing range methods", len(methods)):
            try:
                found[method.name] = self.distance(recipe.model_copy(update={"method": method.name}))
            except (DataError, ModelError):
                found[method.name] = math.inf
        return dict(sorted(found.items(), key=lambda one: one[1]))

    def _count_macs(self, basis: Recipe) -> dict[str, int]:
        feeds = next(iter(self._calibration)).feeds
        try:
            return count_macs(self.ground(basis).model, {name: array.shape for name, array in feeds.items()})
        except ModelError:
            return {}

    def _measure_amax(self, basis: Recipe) -> dict[str, float]:
        ground = self.ground(basis)
        return known_amax(self._magnitudes(ground.model), ground.statistics)

    def _measure_shifts(self, basis: Recipe) -> dict[str, Array]:
        return measure_shifts(self.ground(basis).model, self.table(basis), self._calibration, basis.attention)


def _foundation(recipe: Recipe) -> Recipe:
    """What of a recipe decides on the float model: not the method."""
    return _basis(recipe).model_copy(update={"method": METHODS["percentile"].name})


def _basis(recipe: Recipe) -> Recipe:
    """What of a recipe decides on the float model and the ranges."""
    before = tuple(one for one in recipe.repairs if one in BEFORE)
    return recipe.model_copy(update={"repairs": before, "keep_float": (), "high_precision": "fp32"})
