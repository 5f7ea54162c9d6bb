"""Search for a small set of layers to exclude so that the loss meets a threshold, with few evaluations of that loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trt_ptq.tuning.settings import DEFAULT_SETTINGS, TuningSettings

Loss = Callable[[frozenset[str]], float]


@dataclass(frozen=True)
class SearchResult:
    """The result of `search_layers`.

    Attributes:
        excluded: the layers to exclude, as they were ranked; None if no set that was evaluated meets a threshold.
        loss: the loss with them excluded, or the lowest that was seen.
        evaluations: number of sets that were evaluated.
        threshold: the threshold that is met; NaN if none is.
    """

    excluded: tuple[str, ...] | None
    loss: float
    evaluations: int
    threshold: float = math.nan


def order_by_benefit(
    errors: Mapping[str, float], macs: Mapping[str, int], seconds_saved: Mapping[str, float] | None = None
) -> list[str]:
    """Order layers by what excluding them gains for what it costs: the error over the square root of the MACs.

    Where plans tell how much time a layer saves in INT8, that is the cost instead; a layer that saves none counts as
    the one that saves least.

    By the error alone, layers of a text recogniser with as much of the error but twice the MACs were excluded, to save
    one layer. Layers of unknown MACs count as the smallest.

    Args:
        errors: error ratio by layer, see `LayerSensitivity.alone`.
        macs: multiply-accumulates by layer.
        seconds_saved: estimated seconds that layers save in INT8.
    """
    if saving := {name: seconds for name, seconds in (seconds_saved or {}).items() if seconds > 0}:
        least = min(saving.values())
        return sorted(errors, key=lambda name: errors[name] / saving.get(name, least), reverse=True)
    smallest = min(filter(None, macs.values()), default=1)
    return sorted(errors, key=lambda name: errors[name] / math.sqrt(macs.get(name) or smallest), reverse=True)


def search_layers(
    ranked: Sequence[str],
    loss: Loss,
    expected: Loss,
    thresholds: Sequence[float],
    macs: Mapping[str, int],
    *,
    estimated: Loss | None = None,
    expected_counts: bool = False,
    longest: int | None = None,
    max_evaluations: int = DEFAULT_SETTINGS.max_evaluations,
    settings: TuningSettings = DEFAULT_SETTINGS,
    time_is_up: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Search for few layers to exclude so that the loss meets the strictest of `thresholds`.

    The first so many layers are excluded. How many is proposed by an estimate of the loss, which is cheap, and decided
    by the loss; where that is higher than estimated, estimates rise in proportion. Where they say that `longest` layers
    are not enough, only so many are tried: if these fail, the search is over. Without a useful estimate the number
    grows geometrically. Then layers that turn out not to matter are quantized again, those with most MACs first,
    as they gain most from INT8. Where the strictest threshold excludes more than `max_layers_factor` times the layers
    that the last one does, that one has to do. Excluding all layers leaves no INT8 model, and is never tried.

    Args:
        ranked: layers, those that benefit most from being excluded first; see `order_by_benefit`.
        loss: computes the loss with these layers excluded; called at most `max_evaluations` times.
        expected: what that loss should be, to tell luck; NaN where nothing is known.
        thresholds: largest losses as fractions, the strictest first.
        macs: multiply-accumulates by layer.
        estimated: a cheaper estimate of the same, to propose sets by; `expected` by default.
        expected_counts: whether the expected loss must meet all thresholds but the last as well, since the loss itself
            may be low by luck.
        longest: most layers to exclude; all but one by default.
        max_evaluations: most sets that are evaluated.
        settings: gives `max_layers_factor` and `max_requantized`.
        time_is_up: whether the search has to end with what it has.
    """
    search = _Search(
        ranked,
        loss,
        expected,
        estimated or expected,
        thresholds[-1],
        macs,
        expected_counts,
        len(ranked) - 1 if longest is None else min(longest, len(ranked) - 1),
        max_evaluations,
        settings,
        time_is_up,
    )
    for threshold in thresholds:
        length = search.shortest(threshold)
        if length and not search.is_too_long(length, threshold):
            excluded = search.requantized(tuple(ranked[:length]), threshold)
            return SearchResult(excluded, search.losses[frozenset(excluded)], len(search.losses), threshold)
    return SearchResult(None, min(search.losses.values(), default=math.inf), len(search.losses))


@dataclass
class _Search:
    """`losses` of the sets that were evaluated; `scale`: how many times its estimate the loss is."""

    ranked: Sequence[str]
    loss: Loss
    expected: Loss
    estimated: Loss
    last_threshold: float
    macs: Mapping[str, int]
    expected_counts: bool
    longest: int
    max_evaluations: int
    settings: TuningSettings
    time_is_up: Callable[[], bool]
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.losses: dict[frozenset[str], float] = {}

    def shortest(self, threshold: float) -> int:
        """The smallest number of layers found to meet `threshold`; 0 if none was."""
        failing, enough = self._known(threshold)
        while not enough and failing < self.longest and self._may_evaluate():
            length = self._proposal(failing, threshold)
            if not length and threshold != self.last_threshold:
                return 0  # the next threshold is easier
            length = length or (self.longest if self._estimates_shrink() else self._grown(failing))
            if self._meets(self.ranked[:length], threshold):
                enough = length
            else:
                failing = length
                self._expect_more(self.ranked[:length])
        return self._narrowed(failing, enough, threshold)

    def _estimates_shrink(self) -> bool:
        """Whether estimates tell sets apart, so that they are to be believed where they find no set."""
        least = 1 - self.settings.min_gain
        return self._scaled(self.ranked[: self.longest]) < least * self._scaled(self.ranked[:1])

    def is_too_long(self, length: int, threshold: float) -> bool:
        """Whether a set so much smaller meets the last threshold that `threshold` is not worth `length` layers."""
        smaller = (length - 1) // self.settings.max_layers_factor
        if threshold == self.last_threshold or smaller < 1:
            return False
        names = self.ranked[:smaller]
        if self._scaled(names) > self.last_threshold or not self._may_evaluate(names):
            return False
        return self._loss(names) <= self.last_threshold

    def requantized(self, excluded: tuple[str, ...], threshold: float) -> tuple[str, ...]:
        """`excluded` without layers that need not be."""
        needed = excluded
        layers = reversed(excluded[:-1])  # the last layer is known to be needed
        by_macs = sorted(layers, key=lambda name: self.macs.get(name, 0), reverse=True)
        for name in by_macs[: self.settings.max_requantized]:
            rest = tuple(layer for layer in needed if layer != name)
            if self.expected_counts:
                is_enough = not self.time_is_up() and self._scaled(rest) <= threshold
            else:
                is_enough = self._may_evaluate(rest) and self._meets(rest, threshold)
            needed = rest if is_enough else needed
        if needed != excluded and self._may_evaluate(needed) and self._meets(needed, threshold):
            return needed
        return excluded

    def _known(self, threshold: float) -> tuple[int, int]:
        """Of the numbers of layers evaluated so far: the last that fails `threshold`, the first that meets it."""
        lengths = sorted(length for length in range(1, len(self.ranked)) if self._is_known(self.ranked[:length]))
        enough = next((length for length in lengths if self._meets(self.ranked[:length], threshold)), 0)
        return max((length for length in lengths if not enough or length < enough), default=0), enough

    def _proposal(self, failing: int, threshold: float) -> int:
        """The smallest number of layers above `failing` that is estimated to meet `threshold`; 0 if none is."""
        low, high = failing, self.longest
        if not self._scaled(self.ranked[:high]) <= threshold:
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            if self._scaled(self.ranked[:middle]) <= threshold:
                high = middle
            else:
                low = middle
        return high

    def _grown(self, failing: int) -> int:
        """A larger number of layers, such that the evaluations that are left suffice for almost all layers."""
        if not failing:
            return 1
        left = self.max_evaluations - len(self.losses)
        factor: float = (self.longest / failing) ** (1 / left)
        return min(max(2 * failing, math.ceil(failing * factor)), self.longest)

    def _narrowed(self, failing: int, enough: int, threshold: float) -> int:
        """The smallest number of layers between the two that meets `threshold`, as far as evaluations are left."""
        guided = self.expected_counts and bool(enough) and self._scaled(self.ranked[:enough]) <= threshold
        middle = enough - 1  # the proposal is seldom far off
        while enough - failing > 1:
            names = self.ranked[:middle]
            if guided and self._scaled(names) > threshold:
                failing = middle
            elif not self._may_evaluate(names):
                break
            elif self._meets(names, threshold):
                enough = middle
            else:
                failing = middle
            middle = (failing + enough) // 2
        return enough

    def _meets(self, names: Sequence[str], threshold: float) -> bool:
        must_be_expected = self.expected_counts and threshold != self.last_threshold
        return self._loss(names) <= threshold and not (must_be_expected and self.expected(frozenset(names)) > threshold)

    def _expect_more(self, names: Sequence[str]) -> None:
        """Raise estimates to the loss with `names` excluded, if that is higher."""
        estimated = self.estimated(frozenset(names))
        if estimated > 0:
            self.scale = max(self.scale, self._loss(names) / estimated)

    def _scaled(self, names: Sequence[str]) -> float:
        return self.scale * self.estimated(frozenset(names))

    def _loss(self, names: Sequence[str]) -> float:
        key = frozenset(names)
        if key not in self.losses:
            self.losses[key] = self.loss(key)
        return self.losses[key]

    def _is_known(self, names: Sequence[str]) -> bool:
        return frozenset(names) in self.losses

    def _may_evaluate(self, names: Sequence[str] = ()) -> bool:
        return self._is_known(names) or (len(self.losses) < self.max_evaluations and not self.time_is_up())
