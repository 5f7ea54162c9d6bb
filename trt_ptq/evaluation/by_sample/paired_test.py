"""Whether a candidate can still meet a loss, by the scores of the samples so far, against those of the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from trt_ptq.evaluation.by_sample.sample_scores import MetricOfMean, SampleScores
from trt_ptq.types import Array

LOOKS = (0.25, 0.5, 0.75)  # after these fractions of the samples
ERROR_RATE = 0.001  # of all looks together
MIN_SAMPLES = 50  # fewer differences may be far from normally distributed
MIN_GROUPS = 8  # of samples, whose mean differences are closer to it


@dataclass
class PairedTest:
    """A sequential test of the mean difference to the reference, sample by sample, which both saw in the same order.

    After a quarter, a half and three quarters of the samples, a candidate is hopeless if a one-sided bound of its loss
    over all samples exceeds `limit`. The bound is that of the mean of a sample without replacement, by Student's t
    distribution. It stops a candidate that would meet the limit with a probability of at most 0.1 %, provided that the
    order of the samples is random, and their differences are about normally distributed.

    Source: Cochran, "Sampling Techniques", 3rd ed. 1977, section 9A.1 for groups (clusters) of unequal sizes.

    Attributes:
        reference: the scores of the reference: float64 [samples], by metric.
        is_lower_better: tells whether lower values of a metric are better.
        limit: largest relative loss, as a fraction.
        of_mean: how metrics follow from mean scores, where they are not the mean itself; see `UserMetric`.
        in_groups: whether scores that were yielded together go together, so that each such group counts as one sample,
            with the weight of its size.
    """

    reference: Mapping[str, Array]
    is_lower_better: Callable[[str], bool]
    limit: float
    of_mean: Mapping[str, MetricOfMean] = field(default_factory=dict)
    in_groups: bool = False
    _next_look: int = field(default=0, init=False)

    def is_hopeless(self, scores: SampleScores) -> bool:
        """Whether the candidate with these `scores` so far may be given up; looks at most three times."""
        total = min((len(array) for array in self.reference.values()), default=0)
        looked = self._next_look
        while self._next_look < len(LOOKS) and scores.count >= LOOKS[self._next_look] * total:
            self._next_look += 1
        sizes = np.array(scores.sizes) if self.in_groups else np.ones(scores.count, np.int64)
        least = MIN_GROUPS if self.in_groups else MIN_SAMPLES
        if self._next_look == looked or len(sizes) < least or scores.count >= total:
            return False
        return any(self._bound(name, array, sizes) > self.limit for name, array in scores.by_metric().items())

    def _bound(self, name: str, scores: Array, sizes: Array) -> float:
        """What the relative loss of a metric over all samples exceeds, as far as can be known; NaN if unknown."""
        if name not in self.reference:
            return math.nan
        reference, seen = self.reference[name], len(scores)
        sign = 1 if self.is_lower_better(name) else -1
        loss = sign * (scores - reference[:seen])
        unseen = 1 - seen / len(reference)  # a sample without replacement from all of them
        groups = len(sizes)
        residuals = np.add.reduceat(loss - loss.mean(), np.cumsum(sizes) - sizes)
        deviation = math.sqrt(unseen * groups / (groups - 1) * float(residuals @ residuals)) / seen
        least = float(loss.mean()) - student_t(1 - ERROR_RATE / len(LOOKS), groups - 1) * deviation  # Bonferroni
        metric, mean = self.of_mean.get(name, float), float(reference.mean())
        return sign * (metric(mean + sign * least) - metric(mean)) / (abs(metric(mean)) or 1.0)


def student_t(probability: float, freedom: float) -> float:
    """A quantile of Student's t distribution: within 3 % for 7 degrees of freedom or more, far into the tail.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, formula 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
