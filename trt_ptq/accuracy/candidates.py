"""INT8 models of one float model by recipes; what several recipes have in common is done once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from trt_ptq.accuracy.sensitivity import rank_layers
from trt_ptq.calibrators.batches import BatchSource
from trt_ptq.calibrators.errors import ModelError
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.table import CalibrationTable, derive_table
from trt_ptq.collect.magnitudes import known_amax, measure_amax
from trt_ptq.data.split import FewBatches
from trt_ptq.graph.float16_range import KeptNode
from trt_ptq.graph.half import HighPrecision, halve
from trt_ptq.graph.model import Model
from trt_ptq.graph.qdq import PARTS, Part, QdqModel, insert_qdq
from trt_ptq.graph.recipe import Recipe, Repair

RANKED_ON = 2  # batches


@dataclass(frozen=True)
class Ground:
    """The float model that a recipe starts from, and its statistics."""

    model: Model
    statistics: Statistics


@dataclass(frozen=True)
class Candidate:
    """An INT8 model, what the rest of it is at last, the nodes of it that are float32 in a float16 rest, and why
    there is no float16, if it could not be had."""

    qdq: QdqModel
    high_precision: HighPrecision
    kept: tuple[KeptNode, ...] = ()
    warning: str = ""


class Workshop:
    """Converts a float model by any recipe; `calibration` is what it was calibrated with."""

    def __init__(self, ground: Ground, calibration: BatchSource) -> None:
        self._ground = ground
        self._calibration = calibration

    def table(self, recipe: Recipe) -> CalibrationTable:
        """The ranges by the method of `recipe`."""
        method = recipe.range_method()
        assert method
        return derive_table(self._ground.statistics, method)

    @cached_property
    def amax(self) -> dict[str, float]:
        """Largest magnitudes in the float model; see `measure_amax`."""
        return known_amax(measure_amax(self._ground.model, self._calibration), self._ground.statistics)

    def make(self, recipe: Recipe, parts: tuple[Part, ...] = PARTS) -> Candidate:
        """The model of `recipe`, or with only weights or only activations in INT8."""
        qdq = self._insert(recipe, parts)
        if recipe.high_precision == "fp32":
            return Candidate(qdq, "fp32")
        try:
            half = halve(qdq.model, self.amax)
        except ModelError as error:  # which leaves the model used up
            return Candidate(self._insert(recipe, parts), "fp32", warning=f"what is not INT8 stays in FP32: {error}")
        return Candidate(QdqModel(half.model, qdq.plan), "fp16", half.kept)

    def _insert(self, recipe: Recipe, parts: tuple[Part, ...]) -> QdqModel:
        model = self._ground.model
        return insert_qdq(model, self.table(recipe), recipe.keep_float, recipe.attention, parts)

    def ranked(self, recipe: Recipe) -> list[str]:
        """The layers that `recipe` puts in INT8, the one that costs most first; see sensitivity.py."""
        few = FewBatches(self._calibration, RANKED_ON)
        model = self._ground.model
        return rank_layers(model, self.table(recipe), few, recipe.attention, recipe.keep_float)

    def note(self, recipe: Recipe, repair: Repair) -> str | None:
        return None
