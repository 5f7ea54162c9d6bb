"""The verdict on a quantized model: excellent, acceptable, or needs work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trt_ptq._internal.quantities import format_percent
from trt_ptq.errors import DataError
from trt_ptq.evaluation.fidelity import OutputFidelity, fidelity_of, output_of

EXCELLENT_BELOW = 0.01
ACCEPTABLE_UP_TO = 0.03
EXCELLENT_FIDELITY = 0.01  # 20 dB and 99 % top-1 agreement, see docs/accuracy.md
ACCEPTABLE_FIDELITY = 0.03  # 15.2 dB and 97 %

Grade = Literal["excellent", "acceptable", "needs work"]


@dataclass(frozen=True)
class Verdict:
    """The grade of a model by its worst metric, or by the fidelity of its worst output.

    Attributes:
        grade: "excellent", "acceptable" or "needs work".
        metric: name of the metric with the largest loss; "fidelity of ..." without a metric.
        loss: relative loss of that metric against the reference, as a fraction; or `OutputFidelity.error`.
        max_drop: the threshold that it must not exceed.
        fidelity: fidelity of the worst output, if the verdict is on fidelity.
    """

    grade: Grade
    metric: str
    loss: float
    max_drop: float
    fidelity: OutputFidelity | None = None

    @property
    def passed(self) -> bool:
        """Whether the loss, or the error of the worst output, is within the threshold."""
        return self.loss <= self.max_drop

    def __str__(self) -> str:
        """The grade, and what it is about."""
        return self.sentence()

    def sentence(self, reference: str = "FP32") -> str:
        """The grade, and what it is about, against the `reference`."""
        return f"{self.headline} ({self.describe(reference)})"

    @property
    def output(self) -> str | None:
        """The worst output, if the verdict is on fidelity."""
        return None if self.fidelity is None else output_of(self.metric)

    def warnings(self, data: str = "`test_data`") -> list[str]:
        """Warn of a verdict that top-1 agreement alone decides, which only scores of classes and many samples allow.

        Args:
            data: the parameter that names the data of the comparison.
        """
        fidelity = self.fidelity
        if self.passed or fidelity is None or fidelity.top1 is None or not fidelity.noise <= self.max_drop:
            return []
        answers = fidelity.answers
        decides = (
            f"only top-1 agreement fails: {round(answers * (1 - fidelity.top1))} of {answers} answers of "
            f"{self.output!r} changed. It is taken for scores of classes. If it holds other values, as of a "
            "regression, judge INT8 by `evaluate`, or export the model with a name such as 'regression' for this output"
        )
        if answers * self.max_drop >= 1:
            return [decides]
        one = f"one of {answers} answers is {1 / answers:.1%}, more than `max_drop` allows: give more {data}"
        return [decides, one]

    @property
    def headline(self) -> str:
        """The grade, and whether a good one is worse than what was allowed."""
        return self.grade if self.passed or self.grade == "needs work" else f"{self.grade}, but worse than allowed"

    def describe(self, reference: str = "FP32") -> str:
        """Describe what the grade and the threshold are about, and whether that was met."""
        passed = "passed" if self.passed else "FAILED"
        if self.fidelity is None:
            loss, limit = format_loss(self.loss, self.max_drop), format_percent(self.max_drop)
            if self.loss < 0:
                gain = format_loss(-self.loss)
                return f"{self.metric}: {gain} better than {reference}; allowed {limit} loss: {passed}"
            return f"{self.metric}: {loss} loss against {reference}; allowed {limit}: {passed}"
        text, limit = self.fidelity.describe(self.max_drop)
        return f"{self.metric}: {text} against {reference}; required {limit}: {passed}"


def format_loss(loss: float, max_drop: float = math.nan) -> str:
    """Format a loss in percent: with two significant digits below 0.01 %, and as many as tell it from `max_drop`."""
    percent = 100 * loss
    if not math.isfinite(percent):
        return f"{percent}%"
    text = f"{percent:.2f}" if not percent or abs(percent) >= 0.01 else f"{percent:.2g}"
    for digits in range(3, 17):
        if loss == max_drop or f"{float(text):.6g}" != f"{100 * max_drop:.6g}":
            break
        text = f"{percent:.{digits}g}"
    return f"{text}%"


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
            raise DataError(f"metric {metric!r} is NaN, so there is no verdict")
    metric, loss = max(losses.items(), key=lambda item: item[1])
    return Verdict(_grade_of(loss, EXCELLENT_BELOW, ACCEPTABLE_UP_TO), metric, loss, max_drop)


def grade_fidelity(outputs: Mapping[str, OutputFidelity], max_drop: float = EXCELLENT_FIDELITY) -> Verdict:
    """Grade a model without a metric, by the output with the largest error; see `OutputFidelity.error`.

    At least 20 dB SQNR is excellent, at least 15.2 dB acceptable; where an output holds scores, the top-1 agreement
    must also be at least 99 % or 97 %. Thus answers that changed bound the loss of top-1 accuracy, in points, whatever
    the labels are.

    Args:
        outputs: fidelity by output name.
        max_drop: largest error that passes, as a fraction: 0.01 requires 20 dB and 99 %.

    Raises:
        DataError: no output has a value to compare, or an error is NaN.
    """
    compared = {name: output for name, output in outputs.items() if output.compared}
    if not compared:
        raise DataError("no output has a value to compare, so there is no verdict")
    for name, output in compared.items():
        if math.isnan(output.error):
            raise DataError(
                f"output {name!r} is NaN or infinite in the candidate but not in the reference, so there is no verdict "
                "(because of a logarithm or a division?): end the model before that, or pass `evaluate`"
            )
    name, worst = max(compared.items(), key=lambda item: item[1].error)
    grade = _grade_of(worst.error, EXCELLENT_FIDELITY, ACCEPTABLE_FIDELITY)
    return Verdict(grade, fidelity_of(name), worst.error, max_drop, worst)


def _grade_of(loss: float, excellent: float, acceptable: float) -> Grade:
    if loss < excellent:
        return "excellent"
    return "acceptable" if loss <= acceptable else "needs work"
