"""The smallest set of layers to leave in float so that the loss is allowed: greedy by sensitivity, with back-off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MOST_EVALUATIONS = 15

Loss = Callable[[frozenset[str]], float]


@dataclass(frozen=True)
class Found:
    """`kept` in float, in order of sensitivity; None if no set short of all layers was found. `loss` is that of `kept`
    on the data of the search; `evaluations` counts models judged."""

    kept: tuple[str, ...] | None
    loss: float
    evaluations: int


def search_layers(
    ranked: Sequence[str],
    loss: Loss,
    max_drop: float,
    macs: Mapping[str, int],
    most_evaluations: int = MOST_EVALUATIONS,
) -> Found:
    """Find few of the `ranked` layers (most sensitive first) that, kept in float, give a loss up to `max_drop`.

    Sets of the first 1, 2, 4, ... layers are tried until one will do; bisection then shortens it, and layers that
    are not needed are given back one by one, those of most `macs` first, which gain most from INT8. All layers in
    float are no INT8 model: never tried. `loss(kept)` judges a model; it is called at most `most_evaluations` times.
    """
    judged: dict[int, float] = {}

    def prefix(length: int) -> float:
        if length not in judged:
            judged[length] = loss(frozenset(ranked[:length]))
        return judged[length]

    longest = max(len(ranked) - 1, 0)
    failing, enough = 0, 0
    length = min(1, longest)
    while length and len(judged) < most_evaluations:
        if prefix(length) <= max_drop:
            enough = length
            break
        failing, length = length, min(2 * length, longest) if length < longest else 0
    if not enough:
        return Found(None, min(judged.values(), default=float("inf")), len(judged))
    while enough - failing > 1 and len(judged) < most_evaluations:
        middle = (failing + enough) // 2
        if prefix(middle) <= max_drop:
            enough = middle
        else:
            failing = middle
    kept, best, evaluations = list(ranked[:enough]), judged[enough], len(judged)
    spare = reversed(ranked[: enough - 1])  # the last one is known to be needed
    for name in sorted(spare, key=lambda name: macs.get(name, 0), reverse=True):
        if evaluations == most_evaluations:
            break
        without = [one for one in kept if one != name]
        evaluations += 1
        if (found := loss(frozenset(without))) <= max_drop:
            kept, best = without, found
    return Found(tuple(kept), best, evaluations)
