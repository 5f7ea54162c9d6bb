"""Excellent, acceptable, or needs work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trt_ptq.errors import DataError

EXCELLENT_BELOW = 0.01
ACCEPTABLE_UP_TO = 0.03
LOWER_IS_BETTER = "_lower"

Grade = Literal["excellent", "acceptable", "needs work"]


@dataclass(frozen=True)
class Verdict:
    """`loss` is the relative loss of the worst metric, `metric`, against FP32; `passed` says it is at most
    `max_drop`."""

    grade: Grade
    metric: str
    loss: float
    max_drop: float

    @property
    def passed(self) -> bool:
        return self.loss <= self.max_drop


def format_percent(max_drop: float) -> str:
    """In percent, however small."""
    return f"{100 * max_drop:.6g}%"


def relative_loss(metric: str, reference: float, candidate: float) -> float:
    """What was lost, as a share of the reference (of 1 where that is 0); below 0 is a gain."""
    difference = candidate - reference if metric.endswith(LOWER_IS_BETTER) else reference - candidate
    return difference / (abs(reference) or 1.0)


def judge(losses: Mapping[str, float], max_drop: float = EXCELLENT_BELOW) -> Verdict:
    """The verdict on the worst of `losses` (relative loss by metric): under 1 % is excellent, up to 3 % acceptable.

    Raises:
        DataError: no metric, or one that is NaN.
    """
    if not losses:
        raise DataError("there is no metric to judge by: the evaluation returned none")
    for metric, loss in losses.items():
        if math.isnan(loss):
            raise DataError(
                f"metric {metric!r} is not a number, so the verdict would mean nothing: an output is NaN or infinite "
                "in INT8 and not in FP32 (by a logarithm or a division?): end the model before that, or give --eval"
            )
    metric, loss = max(losses.items(), key=lambda item: item[1])
    grade: Grade = "needs work"
    if loss < EXCELLENT_BELOW:
        grade = "excellent"
    elif loss <= ACCEPTABLE_UP_TO:
        grade = "acceptable"
    return Verdict(grade, metric, loss, max_drop)
