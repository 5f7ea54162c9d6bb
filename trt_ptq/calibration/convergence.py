"""How the ranges settle as samples are added, by each method: how many samples are enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trt_ptq._internal.cpu import usable_cores
from trt_ptq.calibrators.methods import METHODS, RangeMethod
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.types import Array

FIRST_SNAPSHOT = 8  # samples
MIN_SAMPLES = (
    100  # samples: with fewer, ranges that looked stable were seen to be off by 30 % (docs/how-many-samples.md)
)
_SLOWEST = 5
_NAMED = 5

Measured = Mapping[str, TensorStatistics]


@dataclass(frozen=True)
class MethodTrajectory:
    """How far the ranges by one method were from the final ones, after each number of samples.

    `p90` and `worst` are the 90th percentile and the maximum over all tensors of `relative_change`; `slowest` holds the
    scales of the tensors that changed most after half of the samples, if any did.
    """

    method: str
    p90: list[float]
    worst: list[float]
    slowest: dict[str, list[float]]


@dataclass(frozen=True)
class Trajectory:
    """After how many samples the ranges were looked at, and what they were by each method."""

    samples: list[int]
    methods: list[MethodTrajectory]


@dataclass(frozen=True)
class Stability:
    """Whether ranges settled: since half of `samples`, no range by `method` moved by more than `tolerance`.

    `moving` are the tensors that did, and how far. Fewer than 100 samples are never stable: too few to tell.
    """

    method: str
    tolerance: float
    samples: int
    stable: bool
    moving: dict[str, float]

    def __str__(self) -> str:
        """A sentence that names the tensors which moved most."""
        limit = f"{100 * self.tolerance:g}%"
        if self.stable:
            return (
                f"stable after {self.samples} samples: since half of them, no range by {self.method} moved by more "
                f"than {limit}"
            )
        if not self.moving:
            return (
                f"after {self.samples} samples it cannot be told whether the ranges are stable: give {MIN_SAMPLES} or "
                "more, in several batches"
            )
        most = sorted(self.moving, key=lambda name: -self.moving[name])
        named = ", ".join(f"{name!r} by {self.moving[name]:.1%}" for name in most[:_NAMED])
        more = f" and {len(most) - _NAMED} more" if len(most) > _NAMED else ""
        return (
            f"not stable after all {self.samples} samples: since half as many, {len(most)} of the ranges by "
            f"{self.method} moved by more than {limit}: {named}{more}: give more data, or choose a method that depends "
            "less on rare values"
        )


class Convergence:
    """Takes the ranges of growing statistics, at numbers of samples that grow by the square root of 2.

    The first of `methods` is the one that decides. With a `tolerance`, `update` says when its ranges are stable.
    Samples count in the order in which they come, so it must be a random one.
    """

    def __init__(self, methods: Sequence[RangeMethod], tolerance: float | None = None) -> None:
        self.methods = tuple(methods)
        self.tolerance = tolerance
        self._ranges: dict[int, dict[str, list[float]]] = {}  # by samples and tensor: amax by each method

    def update(self, samples: int, measured: Callable[[], Measured]) -> bool:
        """Take the ranges if their turn has come; whether all of them are stable and no more samples are needed."""
        latest = max((count for count in self._ranges if count < samples), default=0)
        if samples < _next_turn(latest):
            return False
        self.record(samples, measured())
        return self.tolerance is not None and self.stability().stable

    def record(self, samples: int, measured: Measured) -> None:
        """Take the ranges after `samples`, unless they were taken; other tensors may follow in a later pass."""
        taken = self._ranges.get(samples, {})
        wanted = {name: tensor for name, tensor in measured.items() if name not in taken}
        with ThreadPoolExecutor(usable_cores()) as pool:
            found = dict(zip(wanted, pool.map(self._derive, wanted.values()), strict=True))
        self._ranges[samples] = taken | found

    def _derive(self, tensor: TensorStatistics) -> list[float]:
        return [float(method.amax(tensor)) for method in self.methods]

    def stability(self) -> Stability:
        """Whether the ranges by the first method are stable after the samples seen so far."""
        samples = max(self._ranges)
        since = _half_way(self._ranges, samples)
        tolerance = self.tolerance or 0.0
        moving: dict[str, float] = {}
        if since is not None:
            own = self._array()[sorted(self._ranges).index(since) :, :, 0]
            moved = relative_change(own, own[-1]).max(axis=0)
            moving = {
                name: float(far) for name, far in zip(self._ranges[samples], moved, strict=True) if far > tolerance
            }
        enough = since is not None and samples >= MIN_SAMPLES
        return Stability(self.methods[0].name, tolerance, samples, enough and not moving, moving)

    def trajectory(self) -> Trajectory:
        """Everything that was taken, against the last of it."""
        samples = sorted(self._ranges)
        names = list(self._ranges[samples[-1]])
        ranges = self._array()
        since = _half_way(samples, samples[-1])
        late = samples.index(samples[-1] if since is None else since)
        methods = []
        for index, method in enumerate(self.methods):
            own = ranges[:, :, index]
            distances = relative_change(own, own[-1])
            moved = distances[late:].max(axis=0)
            slowest = [row for row in np.argsort(-moved, kind="stable")[:_SLOWEST] if moved[row] > 0]
            methods.append(
                MethodTrajectory(
                    method=method.name,
                    p90=np.percentile(distances, 90, axis=1).tolist(),
                    worst=distances.max(axis=1).tolist(),
                    slowest={names[row]: (own[:, row] / 127).tolist() for row in slowest},
                )
            )
        return Trajectory(samples, methods)

    def _array(self) -> Array:
        """Amax, float64 [samples, tensors, methods]."""
        rows = [self._ranges[samples] for samples in sorted(self._ranges)]
        return np.array([[row[name] for name in rows[-1]] for row in rows], np.float64)

    @property
    def settings(self) -> str:
        """What decides, in words: two runs with the same settings stop at the same sample."""
        return f"{self.tolerance} by {', '.join(method.name for method in self.methods)}"

    @property
    def ranges(self) -> dict[str, dict[str, list[float]]]:
        """All that was taken, as JSON holds it: amax by each method, by samples and tensor."""
        return {str(samples): dict(ranges) for samples, ranges in self._ranges.items()}

    def restore(self, ranges: Mapping[str, Mapping[str, list[float]]]) -> None:
        """Go on from the `ranges` that another run took."""
        self._ranges = {int(samples): dict(taken) for samples, taken in ranges.items()}


def all_methods(first: RangeMethod) -> tuple[RangeMethod, ...]:
    """`first`, and the other methods as they are by default."""
    return first, *(method for method in METHODS.values() if type(method) is not type(first))


def relative_change(ranges: Array, others: Array) -> Array:
    """|a - b| / max(a, b), element by element: 0 for equal ranges (both may be 0), 1 where only one is 0."""
    larger = np.maximum(ranges, others)
    return np.asarray(np.abs(ranges - others) / np.where(larger > 0, larger, 1))


def _next_turn(samples: int) -> int:
    """The first of 8, 11, 16, 23, 32, 45… that is beyond `samples`."""
    turn = step = 0
    while (turn := round(FIRST_SNAPSHOT * math.sqrt(2) ** step)) <= samples:
        step += 1
    return turn


def _half_way(counts: Iterable[int], samples: int) -> int | None:
    """The last of `counts` that is at most half of `samples`; None if there is none."""
    return max((count for count in counts if 2 * count <= samples), default=None)
