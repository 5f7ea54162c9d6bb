"""The models of the comparison, each with its calibration data, validation data and test data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import detector, magika, minilm, recogniser, smollm2_135m

Feeds = dict[str, NDArray[Any]]
Run = Callable[[Feeds], Feeds]
Metrics = dict[str, float]


class Case(Protocol):
    """What each module of `benchmarks.models` has; no sample is in two of its three sets."""

    def model(self) -> Path: ...

    def calibration(self, *, samples: int = ...) -> Iterator[Feeds]: ...

    def validation(self, run: Run, samples: int = ...) -> Metrics: ...

    def evaluate(self, run: Run, samples: int = ...) -> Metrics: ...


CASES = {
    "recogniser": cast(Case, recogniser),
    "detector": cast(Case, detector),
    "magika": cast(Case, magika),
    "minilm": cast(Case, minilm),
    "smollm2": cast(Case, smollm2_135m),
}


def count_samples(batches: list[Feeds]) -> int:
    return sum(len(next(iter(feeds.values()))) for feeds in batches)


def calibration_batches(name: str) -> list[Feeds]:
    """All calibration data of a model, as contiguous arrays."""
    return [{key: np.ascontiguousarray(array) for key, array in feeds.items()} for feeds in CASES[name].calibration()]
