"""Metrics that are means over samples, or follow from one, from a function that yields the scores of single samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trt_ptq.errors import DataError
from trt_ptq.evaluation.metric_direction import Lower
from trt_ptq.types import Array

MetricOfMean = Callable[[float], float]


class SampleScores:
    """The scores of samples by metric, in the order in which a function yields them.

    Args:
        name: what messages call the function.
        metric: the metric of scores that are yielded without a name.
        of_mean: how metrics follow from mean scores, where they are not the mean itself; see `UserMetric`.
    """

    def __init__(self, name: str, metric: str, of_mean: Mapping[str, MetricOfMean] | None = None) -> None:
        self._name = name
        self._metric = metric
        self._of_mean = of_mean or {}
        self._parts: dict[str, list[Array]] = {}
        self._lower: set[str] = set()
        self.sizes: list[int] = []  # how many were yielded together
        self.count = 0

    def add(self, item: Any) -> None:
        """Add what was yielded: the score of a sample, those of a batch, or a dict of either by metric.

        Raises:
            DataError: it is something else, has other metrics than before, or not as many scores of each.
        """
        scores = item if isinstance(item, Mapping) else {self._metric: item}
        try:
            arrays = {str(name): np.atleast_1d(np.asarray(value, np.float64)).ravel() for name, value in scores.items()}
        except (TypeError, ValueError) as error:
            raise DataError(f"{self._name} yielded {item!r:.60}: it must yield scores, or dicts of them") from error
        if not arrays or (self._parts and self._parts.keys() != arrays.keys()):
            raise DataError(f"{self._name} must yield the same metrics for each sample, and yielded {list(arrays)}")
        lengths = {array.size for array in arrays.values()}
        if len(lengths) > 1:
            raise DataError(f"{self._name} must yield as many scores of each metric, not {sorted(lengths)}")
        for name, array in arrays.items():
            self._parts.setdefault(name, []).append(array)
        self._lower |= {str(name) for name, value in scores.items() if isinstance(value, Lower)}
        if size := lengths.pop():
            self.sizes.append(size)
        self.count += size

    def by_metric(self) -> dict[str, Array]:
        """The scores so far: float64 [samples], by metric."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    def means(self) -> dict[str, float]:
        """The mean score by metric; empty without samples."""
        return {name: float(scores.mean()) for name, scores in self.by_metric().items()} if self.count else {}

    def metrics(self, means: Mapping[str, float] | None = None) -> dict[str, float]:
        """The metrics that follow from mean scores: `means()` unless given."""
        values = {
            name: self._of_mean[name](mean) if name in self._of_mean else mean
            for name, mean in (self.means() if means is None else means).items()
        }
        return {name: Lower(value) if name in self._lower else value for name, value in values.items()}
