"""Mixed precision: which layers of a recipe not to run in INT8, by output errors first and the objective last."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from trt_ptq._internal.listing import counted
from trt_ptq._internal.quantities import format_percent
from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.verdict import format_loss
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.estimating.estimates import Estimates
from trt_ptq.tuning.judge import Judge
from trt_ptq.tuning.objective import Score
from trt_ptq.tuning.search.alternatives import EXCLUDED, Alternative
from trt_ptq.tuning.search.layer_search import SearchResult, search_layers
from trt_ptq.tuning.settings import TuningSettings

_logger = logging.getLogger("trt_ptq.tuning")


@dataclass(frozen=True)
class Expectation:
    """The loss of a recipe if losses are proportional to output errors.

    Some candidates that a metric of a few hundred samples accepts are only lucky; this detects them.

    Attributes:
        base: a recipe whose score is known.
        loss: its loss.
    """

    base: Recipe
    loss: float
    estimates: Estimates
    judge: Judge

    def of(self, recipe: Recipe) -> float:
        """The expected loss of `recipe`; NaN where the output error says nothing, or there is no time to measure it."""
        if self.judge.time_is_up and not self.estimates.is_measured(recipe):
            return math.nan
        return self._scaled(recipe, self.estimates.output_error)

    def at_first(self, recipe: Recipe) -> float:
        """The same from a first look alone."""
        return math.nan if self.judge.time_is_up else self._scaled(recipe, self.estimates.first_look)

    def describe(self, recipe: Recipe) -> str:
        """What the first look says, as text; empty where that would cost something."""
        if not (self.estimates.is_seen(self.base) and self.estimates.is_seen(recipe)):
            return ""
        return f", {format_loss(self._scaled(recipe, self.estimates.first_look))} expected from the output error"

    def _scaled(self, recipe: Recipe, error_of: Callable[[Recipe], float]) -> float:
        try:
            error = error_of(self.base)
            if not error or not math.isfinite(error):
                return math.nan
            return min(self.loss, 1.0) * error_of(recipe) / error
        except (DataError, ModelError):  # the outputs cannot be compared
            return math.nan


@dataclass(frozen=True)
class MixedPrecision:
    """The recipe that changes what a search found, and its score; `result` says what was found."""

    result: SearchResult
    recipe: Recipe
    score: Score


def search_mixed_precision(
    start: Recipe,
    ranked: Sequence[str],
    alternative: Alternative,
    expectation: Expectation,
    thresholds: Sequence[float],
    macs: dict[str, int],
    settings: TuningSettings,
) -> SearchResult | MixedPrecision:
    """Search for few layers of `start` to change to an alternative; see `search_layers`.

    Args:
        start: the recipe to change layers of.
        ranked: its layers, those that benefit most from being changed first.
        alternative: what runs instead of INT8.
        expectation: estimates losses.
        thresholds: largest losses as fractions, the strictest first.
        macs: multiply-accumulates by layer.
        settings: constants of tuning.

    Returns:
        What was found, or the result of the search where nothing was.

    Raises:
        DataError, ModelError: see `Judge.score`.
    """
    judge, scores = expectation.judge, dict[frozenset[str], Score]()
    most = settings.max_evaluations if judge.has_metric else settings.max_comparisons

    def without(names: Collection[str]) -> Recipe:
        return alternative.apply(start, sorted(names, key=ranked.index))

    def loss(names: frozenset[str]) -> float:
        scores[names] = judge.score(without(names), thresholds[-1])
        _logger.info(
            "%s: %d of %d layers %s: %s %s%s",
            judge.status,
            len(names),
            len(ranked),
            alternative.name,
            format_loss(scores[names].loss, thresholds[-1]),
            judge.quantity,
            expectation.describe(without(names)),
        )
        return scores[names].loss

    result = search_layers(
        ranked,
        loss,
        lambda names: expectation.of(without(names)),
        thresholds,
        macs,
        estimated=lambda names: expectation.at_first(without(names)),
        expected_counts=judge.has_metric,
        longest=_longest(ranked, macs, settings) if alternative == EXCLUDED else None,
        max_evaluations=most,
        settings=settings,
        time_is_up=lambda: judge.time_is_up,
    )
    if result.excluded is None:
        return result
    return MixedPrecision(result, without(result.excluded), scores[frozenset(result.excluded)])


def _longest(ranked: Sequence[str], macs: Mapping[str, int], settings: TuningSettings) -> int:
    """How many of `ranked` can be excluded, one at least, so that enough of the MACs stay in INT8."""
    weights = [macs.get(name, 0) for name in ranked] if any(map(macs.get, ranked)) else [1] * len(ranked)
    most = settings.max_excluded_macs * sum(weights)
    return max(sum(excluded <= most for excluded in accumulate(weights)), 1)


def failure(result: SearchResult, loss: float, max_drop: float, quantity: str, settings: TuningSettings) -> str:
    """Why a search found nothing, and which threshold would allow its best candidate.

    Args:
        result: the result of the search.
        loss: the loss of the model without excluded layers.
        max_drop: accuracy threshold, as a fraction.
        quantity: what losses measure.
        settings: gives the MACs that have to stay in INT8.
    """
    message = (
        f"INT8 has {format_loss(loss, max_drop)} {quantity}. No mixed-precision configuration within "
        f"{format_percent(max_drop)} that keeps {1 - settings.max_excluded_macs:.0%} of the multiply-accumulates in "
        f"INT8 was found in {counted(result.evaluations, 'evaluation')}"
    )
    if not (math.isfinite(result.loss) and result.loss <= loss):
        return message
    advice = f" (accept it with `max_drop={format_percent(_rounded_up(result.loss))}`)" if result.loss < 1 else ""
    return f"{message}; the best had {result.loss:.4%} {quantity}{advice}"


def _rounded_up(loss: float) -> float:
    """`loss` rounded up to two digits, as a threshold that allows it."""
    step = 10.0 ** (math.floor(math.log10(loss)) - 1)
    return math.ceil(loss / step) * step
