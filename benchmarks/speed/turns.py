"""Timing in turn, A B A B: what slows a shared machine for a while then slows both sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

ROUNDS = 5

Job = Callable[[], float]
Seconds = dict[str, list[float]]


def timed(function: Callable[[], Any], prepare: Callable[[], Any] | None = None) -> Job:
    """A job that runs `function` and gives the seconds it took; `prepare` runs before the clock starts."""

    def job() -> float:
        if prepare:
            prepare()
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return job


def in_turn(jobs: Mapping[str, Job], rounds: int = ROUNDS, *, warm: bool = False) -> Seconds:
    """Seconds of each job in each round.

    Unless everything is `warm` already, one round goes before that does not count (compilation, caches, page faults).
    """
    if not warm:
        for job in jobs.values():
            job()
    seconds: Seconds = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            seconds[name].append(job())
    return seconds


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios, round by round."""
    return median(one / other for one, other in zip(over, under, strict=True))
