"""Whether a candidate can still meet a loss, by the scores of the samples so far, against those of the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

from trt_ptq.evaluation.by_sample.sample_scores import MetricOfMean, SampleScores
from trt_ptq.types import Array

LOOKS = (0.25, 0.5, 0.75)  # after these fractions of the samples
ERROR_RATE = 0.001  # of all looks together
MIN_SAMPLES = 50  # fewer differences may be far from normally distributed
_DEVIATIONS = NormalDist().inv_cdf(1 - ERROR_RATE / len(LOOKS))  # Bonferroni


@dataclass
class PairedTest:
    """A sequential test of the mean difference to the reference, sample by sample, which both saw in the same order.

    After a quarter, a half and three quarters of the samples, a candidate is hopeless if a one-sided bound of its loss
    over all samples exceeds `limit`. The bound is that of the mean of a sample without replacement, by the normal
    approximation. It stops a candidate that would meet the limit with a probability of at most 0.1 %, provided that the
    order of the samples is random.

    Attributes:
        reference: the scores of the reference: float64 [samples], by metric.
        is_lower_better: tells whether lower values of a metric are better.
        limit: largest relative loss, as a fraction.
        of_mean: how metrics follow from mean scores, where they are not the mean itself; see `UserMetric`.
    """

    reference: Mapping[str, Array]
    is_lower_better: Callable[[str], bool]
    limit: float
    of_mean: Mapping[str, MetricOfMean] = field(default_factory=dict)
    _next_look: int = field(default=0, init=False)

    def is_hopeless(self, scores: SampleScores) -> bool:
        """Whether the candidate with these `scores` so far may be given up; looks at most three times."""
        total = min((len(array) for array in self.reference.values()), default=0)
        looked = self._next_look
        while self._next_look < len(LOOKS) and scores.count >= LOOKS[self._next_look] * total:
            self._next_look += 1
        if self._next_look == looked or not MIN_SAMPLES <= scores.count < total:
            return False
        return any(self._bound(name, array) > self.limit for name, array in scores.by_metric().items())

    def _bound(self, name: str, scores: Array) -> float:
        """What the relative loss of a metric over all samples exceeds, as far as can be known; NaN if unknown."""
        if name not in self.reference:
            return math.nan
        reference, seen = self.reference[name], len(scores)
        sign = 1 if self.is_lower_better(name) else -1
        loss = sign * (scores - reference[:seen])
        unseen = 1 - seen / len(reference)  # a sample without replacement from all of them
        deviation = float(loss.std(ddof=1)) * math.sqrt(unseen / seen)
        least = float(loss.mean()) - _DEVIATIONS * deviation
        metric, mean = self.of_mean.get(name, float), float(reference.mean())
        return sign * (metric(mean + sign * least) - metric(mean)) / (abs(metric(mean)) or 1.0)
