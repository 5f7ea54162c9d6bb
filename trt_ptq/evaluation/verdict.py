"""The verdict on a quantized model: excellent, acceptable, or needs work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trt_ptq.errors import DataError

EXCELLENT_BELOW = 0.01
ACCEPTABLE_UP_TO = 0.03

Grade = Literal["excellent", "acceptable", "needs work"]


@dataclass(frozen=True)
class Verdict:
    """The grade of a model by its worst metric.

    Attributes:
        grade: "excellent", "acceptable" or "needs work".
        metric: name of the metric with the largest loss.
        loss: relative loss of that metric against the reference, as a fraction.
        max_drop: accuracy threshold, as a fraction.
    """

    grade: Grade
    metric: str
    loss: float
    max_drop: float

    @property
    def passed(self) -> bool:
        """Whether the loss is within the threshold."""
        return self.loss <= self.max_drop


def format_percent(fraction: float) -> str:
    """Format a fraction in percent, however small it is."""
    return f"{100 * fraction:.6g}%"


def relative_loss(reference: float, candidate: float, lower_is_better: bool = False) -> float:
    """Compute the loss as a fraction of the reference (of 1 where that is 0); a gain is below 0."""
    difference = candidate - reference if lower_is_better else reference - candidate
    return difference / (abs(reference) or 1.0)


def grade(losses: Mapping[str, float], max_drop: float = EXCELLENT_BELOW) -> Verdict:
    """Grade a model by the worst of its losses: below 1 % is excellent, up to 3 % acceptable.

    Args:
        losses: relative loss by metric, as fractions.
        max_drop: accuracy threshold, as a fraction.

    Raises:
        DataError: there is no metric, or one is NaN.
    """
    if not losses:
        raise DataError("the evaluation returned no metric, so there is no verdict")
    for metric, loss in losses.items():
        if math.isnan(loss):
            raise DataError(
                f"metric {metric!r} is NaN, so there is no verdict: an output is NaN or infinite in the candidate but "
                "not in the reference (because of a logarithm or a division?): end the model before that, or pass "
                "`evaluate`"
            )
    metric, loss = max(losses.items(), key=lambda item: item[1])
    return Verdict(_grade_of(loss), metric, loss, max_drop)


def _grade_of(loss: float) -> Grade:
    if loss < EXCELLENT_BELOW:
        return "excellent"
    return "acceptable" if loss <= ACCEPTABLE_UP_TO else "needs work"
