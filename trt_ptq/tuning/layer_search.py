"""The smallest set of layers to leave in float so that the loss is allowed: greedy, with back-off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MOST_EVALUATIONS = 15
MANY_TIMES = 2  # a stricter gate is not worth more

Loss = Callable[[frozenset[str]], float]
_LossOf = Callable[[Sequence[str]], float]


@dataclass(frozen=True)
class SearchResult:
    """`kept` in float, as they were ranked; None if no set short of all layers was found. `loss` is that of `kept`
    on the data of the search; `evaluations` counts models judged."""

    kept: tuple[str, ...] | None
    loss: float
    evaluations: int


def by_worth(costs: Mapping[str, float], macs: Mapping[str, int]) -> list[str]:
    """Layers that INT8 costs most for what it saves first: the cost over the square root of `macs`.

    By cost alone, layers of a text recogniser that make as much of the error took twice the arithmetic into float,
    for one layer less. Layers of no known arithmetic count as the smallest.
    """
    least = min(filter(None, macs.values()), default=1)
    return sorted(costs, key=lambda name: costs[name] / math.sqrt(macs.get(name) or least), reverse=True)


def search_layers(
    ranked: Sequence[str],
    loss: Loss,
    gates: Sequence[float],
    macs: Mapping[str, int],
    most_evaluations: int = MOST_EVALUATIONS,
) -> SearchResult:
    """Find few of the `ranked` layers (see `by_worth`) that, kept in float, give a loss up to the first of
    `gates`, the strictest; or if that takes over `MANY_TIMES` the layers that the last one does, up to the next.

    Sets of the first 1, 2, 4, ... layers are tried until one will do; bisection then shortens it, and layers that
    are not needed are given back one by one, those of most `macs` first, which gain most from INT8. All layers in
    float are no INT8 model: never tried. `loss(kept)` judges a model; it is called at most `most_evaluations` times.
    """
    judged: dict[frozenset[str], float] = {}

    def loss_of(kept: Sequence[str]) -> float:
        names = frozenset(kept)
        if names not in judged and len(judged) == most_evaluations:
            return math.inf
        if names not in judged:
            judged[names] = loss(names)
        return judged[names]

    _, reach = _bracket(ranked, loss_of, gates[-1], len(ranked) - 1)
    for gate in gates:
        failing, enough = _bracket(ranked, loss_of, gate, min(MANY_TIMES * reach, len(ranked) - 1))
        if enough:
            kept = _shortened(ranked, loss_of, gate, failing, enough, macs)
            return SearchResult(kept, judged[frozenset(kept)], len(judged))
    return SearchResult(None, min(judged.values(), default=math.inf), len(judged))


def _bracket(ranked: Sequence[str], loss_of: _LossOf, gate: float, longest: int) -> tuple[int, int]:
    """Of the first 1, 2, 4, ... up to `longest` layers how many fail `gate`, and how many next meet it; else zeros."""
    failing, length = 0, min(1, longest)
    while length > failing:
        if loss_of(ranked[:length]) <= gate:
            return failing, length
        failing, length = length, min(2 * length, longest)
    return 0, 0


def _shortened(
    ranked: Sequence[str], loss_of: _LossOf, gate: float, failing: int, enough: int, macs: Mapping[str, int]
) -> tuple[str, ...]:
    """Few of the first `enough` layers by which `gate` is met, the first `failing` of which do not."""
    while enough - failing > 1:
        middle = (failing + enough) // 2
        if loss_of(ranked[:middle]) <= gate:
            enough = middle
        else:
            failing = middle
    kept = tuple(ranked[:enough])
    spare = reversed(kept[:-1])  # the last one is known to be needed
    for name in sorted(spare, key=lambda name: macs.get(name, 0), reverse=True):
        without = tuple(one for one in kept if one != name)
        if loss_of(without) <= gate:
            kept = without
    return kept
