"""Search for the smallest set of layers to exclude so that the loss meets a threshold: greedy, with back-off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trt_ptq.tuning.settings import DEFAULT_SETTINGS, TuningSettings

Loss = Callable[[frozenset[str]], float]
_LossOf = Callable[[Sequence[str]], float]


@dataclass(frozen=True)
class SearchResult:
    """The result of `search_layers`.

    Attributes:
        excluded: the layers to exclude, as they were ranked; None if no set short of all layers meets a threshold.
        loss: the loss with them excluded, or the lowest that was seen.
        evaluations: number of candidates that were evaluated.
    """

    excluded: tuple[str, ...] | None
    loss: float
    evaluations: int


def order_by_benefit(errors: Mapping[str, float], macs: Mapping[str, int]) -> list[str]:
    """Order layers by what excluding them gains for what it costs: the error over the square root of the MACs.

    By the error alone, layers of a text recogniser with as much of the error but twice the MACs were excluded, to save
    one layer. Layers of unknown MACs count as the smallest.

    Args:
        errors: error ratio by layer, see `LayerSensitivity.alone`.
        macs: multiply-accumulates by layer.
    """
    smallest = min(filter(None, macs.values()), default=1)
    return sorted(errors, key=lambda name: errors[name] / math.sqrt(macs.get(name) or smallest), reverse=True)


def search_layers(
    ranked: Sequence[str],
    loss: Loss,
    thresholds: Sequence[float],
    macs: Mapping[str, int],
    settings: TuningSettings = DEFAULT_SETTINGS,
) -> SearchResult:
    """Search for few layers to exclude so that the loss meets the strictest of `thresholds`.

    Where that excludes more than `max_layers_factor` times the layers that the last threshold does, the next one is
    tried. The first 1, 2, 4, ... layers are excluded until the threshold is met; bisection then shortens that set, and
    layers that turn out not to matter are quantized again, those with most MACs first, as they gain most from INT8.
    Excluding all layers leaves no INT8 model, and is never tried.

    Args:
        ranked: layers, those that benefit most from being excluded first; see `order_by_benefit`.
        loss: computes the loss with these layers excluded; called at most `max_evaluations` times.
        thresholds: largest losses as fractions, the strictest first.
        macs: multiply-accumulates by layer.
        settings: gives `max_evaluations` and `max_layers_factor`.
    """
    evaluated: dict[frozenset[str], float] = {}

    def loss_of(excluded: Sequence[str]) -> float:
        names = frozenset(excluded)
        if names not in evaluated and len(evaluated) == settings.max_evaluations:
            return math.inf
        if names not in evaluated:
            evaluated[names] = loss(names)
        return evaluated[names]

    _, length = _bracket(ranked, loss_of, thresholds[-1], len(ranked) - 1)
    longest = min(settings.max_layers_factor * length, len(ranked) - 1)
    for threshold in thresholds:
        failing, enough = _bracket(ranked, loss_of, threshold, longest)
        if enough:
            excluded = _shorten(ranked, loss_of, threshold, failing, enough, macs)
            return SearchResult(excluded, evaluated[frozenset(excluded)], len(evaluated))
    return SearchResult(None, min(evaluated.values(), default=math.inf), len(evaluated))


def _bracket(ranked: Sequence[str], loss_of: _LossOf, threshold: float, longest: int) -> tuple[int, int]:
    """Two lengths out of 1, 2, 4, ... up to `longest`: the last that fails `threshold`, the first that meets it.

    Zeros if none meets it.
    """
    failing, length = 0, min(1, longest)
    while length > failing:
        if loss_of(ranked[:length]) <= threshold:
            return failing, length
        failing, length = length, min(2 * length, longest)
    return 0, 0


def _shorten(
    ranked: Sequence[str], loss_of: _LossOf, threshold: float, failing: int, enough: int, macs: Mapping[str, int]
) -> tuple[str, ...]:
    """Few of the first `enough` layers that meet `threshold`; the first `failing` of them do not."""
    while enough - failing > 1:
        middle = (failing + enough) // 2
        if loss_of(ranked[:middle]) <= threshold:
            enough = middle
        else:
            failing = middle
    excluded = tuple(ranked[:enough])
    candidates = reversed(excluded[:-1])  # the last layer is known to be needed
    for name in sorted(candidates, key=lambda name: macs.get(name, 0), reverse=True):
        rest = tuple(layer for layer in excluded if layer != name)
        if loss_of(rest) <= threshold:
            excluded = rest
    return excluded
