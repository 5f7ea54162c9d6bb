"""Techniques that their output error speaks against, at the price of a first look in most cases."""

from __future__ import annotations

from trt_ptq.recipe import Recipe
from trt_ptq.tuning.estimating.estimates import Estimates
from trt_ptq.tuning.technique_order import without_gptq
from trt_ptq.tuning.trials import Trial


def rejection(
    estimates: Estimates, name: str, before: Recipe, after: Recipe, loss: float, max_drop: float, min_gain: float
) -> Trial | None:
    """The trial of a technique whose output error says that a score is not worth its price; None where it is.

    GPTQ is left out of the first look: it would round all weights again for a technique that is dropped there.

    Args:
        estimates: measures output errors.
        name: what is new in the trial.
        before: the recipe without the technique.
        after: the recipe with it.
        loss: the loss without it.
        max_drop: accuracy threshold, as a fraction.
        min_gain: see `TuningSettings`.

    Raises:
        DataError, ModelError: see `OutputDeviation.measure`.
    """

    def judged(old: float, new: float, when: str = "") -> Trial | None:
        note = f"output error on calibration data{when}: {old:.3g} -> {new:.3g}"
        if new > old:
            return Trial(name, {}, {}, "rejected: larger output error", note, new)
        expected = loss * new / old if old else 0.0
        if expected > max_drop and new > (1 - min_gain) * old:
            return Trial(name, {}, {}, "rejected: no gain", note, new)
        return None

    looks = estimates.first_look(without_gptq(before)), estimates.first_look(without_gptq(after), roughly=True)
    return judged(*looks, " at first") or judged(estimates.output_error(before), estimates.output_error(after))
