"""From a plain INT8 model that loses too much to one that does not: stages, repairs, layers left in float.

Stages tell where the loss comes from: weights only, activations only, both. Repairs, then other range methods, are
tried one by one, each on top of what was kept before. What is still lost then is bought back by the most sensitive
layers; see search.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.errors import TrtPtqError
from trt_ptq.evaluation.metrics import Metrics
from trt_ptq.evaluation.verdict import format_percent
from trt_ptq.qdq.insert import TENSOR_KINDS
from trt_ptq.recipe import Recipe, Technique
from trt_ptq.tuning.builder import BEFORE, CandidateBuilder
from trt_ptq.tuning.layer_search import MOST_EVALUATIONS, search_layers
from trt_ptq.tuning.objective import Objective, Score
from trt_ptq.types import Tell, untold

Decision = Literal["for analysis", "kept", "dropped: little or no gain", "dropped: further away", "dropped: failed"]

LEAST_GAIN = 0.1  # of the loss: less than that is as likely luck
RUNNERS_UP = 2  # range methods that the metric is asked about, too
LIKELY_IN_FLOAT = 0.1  # of the layers, where some are left in float
AIM = 0.5  # of the gate: by a metric of few samples, the luckiest of the sets that are judged flatters
TECHNIQUES_TO_TRY: tuple[Technique, ...] = (
    "equalization",
    "smoothquant",
    "bias-correction",
)  # in this order
TITLES: dict[Technique, str] = {
    "equalization": "cross-layer equalisation",
    "smoothquant": "SmoothQuant",
    "bias-correction": "bias correction",
}


@dataclass(frozen=True)
class Trial:
    """One candidate on the way: `losses` against FP32 with the `metrics` behind them, and what became of what is new
    in it."""

    name: str
    losses: dict[str, float]
    metrics: Metrics
    decision: Decision = "kept"
    note: str = ""


@dataclass(frozen=True)
class TuningResult:
    """The recipe that was found, its metrics, the way there, and what failed.

    `searched`: the recipe has what was not asked for, and was chosen by the data of the judge.
    """

    recipe: Recipe
    searched: bool
    metrics: Metrics
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...] = ()


def tune(
    recipe: Recipe,
    candidates: CandidateBuilder,
    judge: Objective,
    max_drop: float,
    *,
    methods: tuple[RangeMethod, ...] = (),
    repair: bool = True,
    search: bool = True,
    tell: Tell = untold,
) -> TuningResult:
    """Judge what `recipe` makes, stage by stage, and where it loses more than `max_drop` look for a better one.

    With `methods`, the closest of these (see `CandidateBuilder.ranked_methods`) replaces that of `recipe`: at first,
    and where a technique has changed the float model. The techniques that `recipe` asks for are applied whatever they
    bring. As long as the loss is above `max_drop`, more is tried, and accepted where it lowers the loss to `max_drop`,
    or by `LEAST_GAIN` of it: with `repair` the other techniques, if they take outputs no further away; where there is a
    metric, the runners-up of `methods`; with `search` the most sensitive layers are excluded then. Unless the metric
    has chosen the method, it is the one of `methods` that is closest where the most sensitive tenth is excluded. By a
    metric, the search is for `AIM` of `max_drop`, by it and as the outputs let expect; if that takes too many, for all
    of `max_drop` by the metric alone.

    Raises:
        DataError, ModelError: see `Objective.judge`.
    """
    plain = recipe.model_copy(update={"techniques": ()})
    tuner = _Tuner(plain, candidates, judge, max_drop, methods, tell)
    for technique in recipe.techniques:
        tuner.apply(technique, forced=True)
    made_anyway = tuner.recipe
    for technique in TECHNIQUES_TO_TRY if repair else ():
        if tuner.missed and technique not in recipe.techniques:
            tuner.apply(technique, forced=False)
    for name in tuner.runners_up() if judge.evaluate else ():
        if tuner.missed:
            tuner.method(name)
    warnings = []
    if search and tuner.missed and (failed := tuner.search()):
        warnings.append(failed)
    searched = tuner.recipe != made_anyway
    return TuningResult(tuner.recipe, searched, tuner.best.metrics, tuple(tuner.trials), tuple(warnings))


class _Tuner:
    """Judges one candidate after the other; `recipe` is the one kept so far, `best` what became of it."""

    def __init__(
        self,
        plain: Recipe,
        candidates: CandidateBuilder,
        judge: Objective,
        max_drop: float,
        methods: tuple[RangeMethod, ...],
        tell: Tell,
    ) -> None:
        self.trials: list[Trial] = []
        self._candidates = candidates
        self._judge = judge
        self._max_drop = max_drop
        self._methods = methods
        self._tell = tell
        self._chosen_by_metric = False
        self.recipe = plain = self._by_closest(plain)
        for part in TENSOR_KINDS:
            model = candidates.make(plain, (part,)).qdq.model
            self._add(f"{part} only", judge.judge(model), "for analysis")
        self.best = self._evaluate(plain)
        self._add("weights and activations", self.best, note=self._told_ranking(plain))

    @property
    def missed(self) -> bool:
        """Whether the best so far loses more than is allowed."""
        return self.best.loss > self._max_drop

    def runners_up(self) -> list[str]:
        """The methods that are closest but for that of the recipe."""
        ranking = self._ranking(self.recipe)
        return [name for name in ranking if name != self.recipe.method][:RUNNERS_UP]

    def method(self, name: str) -> None:
        """Go on with the ranges of this method if they lower the loss."""
        recipe = self.recipe.model_copy(update={"method": name})
        self._keep_if(f"method {name}", recipe, self._evaluate(recipe))
        self._chosen_by_metric |= self.recipe == recipe

    def apply(self, technique: Technique, *, forced: bool) -> None:
        """Keep `technique` if forced or if it helps. Skipped silently if it does not apply to the model."""
        recipe = self.recipe.model_copy(update={"techniques": (*self.recipe.techniques, technique)})
        try:
            fit = self._candidates.fit(recipe, technique)
            if not fit.places and not forced:
                return
            if technique in BEFORE and fit.places:
                recipe = self._by_closest(recipe)
            if not forced and (away := self._further_away(recipe)):
                self.trials.append(Trial(TITLES[technique], {}, {}, "dropped: further away", away))
                return
            judgement = self._evaluate(recipe)
        except TrtPtqError as error:
            if forced:
                raise
            self.trials.append(Trial(TITLES[technique], {}, {}, "dropped: failed", str(error)))
            return
        note = fit.note if fit.places else "fits nowhere in the model"
        if recipe.method != self.recipe.method:
            note = f"method {recipe.method}; {note}"
        self._keep_if(TITLES[technique], recipe, judgement, forced, note)

    def search(self) -> str | None:
        """Leave in float the layers that cost most; why that failed, if it did."""
        try:
            ranked = self._candidates.ranked_layers(self.recipe)
        except TrtPtqError as error:
            return f"no layers to leave in float were searched for: {error}"
        if len(ranked) < 2:
            return f"INT8 loses {self.best.loss:.2%}, and with one layer in INT8 there is none to choose from"
        start = self._start(ranked)
        judged: dict[frozenset[str], Score] = {}

        def kept_in_float(names: Collection[str]) -> Recipe:
            return _in_float(start, sorted(names, key=ranked.index))

        def loss(names: frozenset[str]) -> float:
            recipe = kept_in_float(names)
            judged[names] = self._evaluate(recipe)
            expected = self._expected(recipe)
            self._tell(
                f"evaluation {len(judged)} (at most {MOST_EVALUATIONS}): {len(names)} layers in float, "
                f"{judged[names].loss:.2%} loss" + (f", {expected:.2%} expected" if expected else "")
            )
            return max(judged[names].loss, min(expected, self._max_drop))

        gates = (AIM * self._max_drop, self._max_drop) if self._judge.evaluate else (self._max_drop,)
        found = search_layers(ranked, loss, gates, self._candidates.macs(self.recipe))
        if found.kept is None:
            return (
                f"INT8 loses {self.best.loss:.2%}, and no set of layers to leave in float was found that loses "
                f"{format_percent(self._max_drop)} or less ({found.evaluations} evaluations, at best {found.loss:.4%}"
                f"{', which --max-drop can allow' if found.loss < 1 else ''})"
            )
        self.recipe, self.best = kept_in_float(found.kept), judged[frozenset(found.kept)]
        self._add(
            f"mixed precision: {len(found.kept)} of {len(ranked)} layers in float",
            self.best,
            note=f"method {start.method}; {', '.join(found.kept)}; found in {found.evaluations} evaluations",
        )
        return None

    def _expected(self, recipe: Recipe) -> float:
        """The loss, were it in proportion to how far the outputs are away; 0 without a metric, as it is just that.

        Of sets that a metric of a few hundred samples allows, some are only lucky. This tells them from others.
        """
        away = self._candidates.distance(self.recipe)
        if not self._judge.evaluate or not away or not math.isfinite(away):
            return 0.0
        return min(self.best.loss, 1.0) * self._candidates.distance(recipe) / away

    def _start(self, ranked: list[str]) -> Recipe:
        """What the search starts from: the method that is closest without the layers that are likely left in float.

        They would decide on it, and do not matter then. A method that the metric has chosen stays.
        """
        if self._chosen_by_metric:
            return self.recipe
        likely = math.ceil(LIKELY_IN_FLOAT * len(ranked))
        method = self._by_closest(_in_float(self.recipe, ranked[:likely])).method
        return self.recipe.model_copy(update={"method": method})

    def _ranking(self, recipe: Recipe) -> dict[str, float]:
        return self._candidates.ranked_methods(recipe, self._methods) if self._methods else {}

    def _by_closest(self, recipe: Recipe) -> Recipe:
        closest = next(iter(self._ranking(recipe)), recipe.method)
        return recipe.model_copy(update={"method": closest})

    def _told_ranking(self, recipe: Recipe) -> str:
        losses = ", ".join(f"{name} {loss:.3g}" for name, loss in self._ranking(recipe).items())
        return losses and f"fidelity lost on calibration data, by method: {losses}"

    def _further_away(self, recipe: Recipe) -> str:
        """That the outputs are; empty if not."""
        before, after = map(self._candidates.distance, (self.recipe, recipe))
        return f"fidelity lost on calibration data: {before:.3g} -> {after:.3g}" if after > before else ""

    def _keep_if(self, name: str, recipe: Recipe, judgement: Score, forced: bool = False, note: str = "") -> None:
        enough = judgement.loss <= self._max_drop or judgement.loss <= (1 - LEAST_GAIN) * self.best.loss
        kept = forced or (judgement.loss < self.best.loss and enough)
        self._add(name, judgement, "kept" if kept else "dropped: little or no gain", note)
        if kept:
            self.recipe, self.best = recipe, judgement

    def _evaluate(self, recipe: Recipe) -> Score:
        return self._judge.judge(self._candidates.make(recipe).qdq.model)

    def _add(self, name: str, judgement: Score, decision: Decision = "kept", note: str = "") -> None:
        self._tell(f"{name}: {judgement.loss:.2%} loss")
        self.trials.append(Trial(name, judgement.losses, judgement.metrics, decision, note))


def _in_float(recipe: Recipe, names: Collection[str]) -> Recipe:
    return recipe.model_copy(update={"nodes_to_exclude": (*recipe.nodes_to_exclude, *names)})
