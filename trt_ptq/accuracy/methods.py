"""Which range method keeps the outputs of the INT8 model closest to those of the float model."""

from __future__ import annotations

from collections.abc import Sequence

from trt_ptq.accuracy.candidates import Workshop
from trt_ptq.accuracy.judge import Judge
from trt_ptq.calibrators.batches import Track
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.graph.recipe import Recipe

BATCHES = 8  # of the calibration data, to compare on: on five real models their order was that of all held-out data


def rank_methods(
    recipe: Recipe, methods: Sequence[RangeMethod], workshop: Workshop, judge: Judge, track: Track
) -> dict[str, float]:
    """The loss of `recipe` by each of `methods`, by name, least first; of equal ones that which comes first.

    `judge` goes by fidelity. A metric is not asked: where methods differ by a few samples of it, it tells luck, and
    the outputs do not.

    Raises:
        DataError, ModelError: see `Judge.judge`.
    """
    losses = {}
    for method in track(methods, "Comparing range methods", len(methods)):
        candidate = workshop.make(recipe.model_copy(update={"method": method.name}))
        losses[method.name] = judge.judge(candidate.qdq.model).loss
    return dict(sorted(losses.items(), key=lambda one: one[1]))
