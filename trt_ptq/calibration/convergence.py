"""How the ranges of each method converge as samples are added, to find out how many samples are enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.calibrators.methods import METHODS, RangeMethod
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.calibrators.table.calibration_table import INT8_MAX
from trt_ptq.types import Array

FIRST_SNAPSHOT = 8  # samples
# With fewer samples, ranges that looked stable were off by up to 30 % (docs/how-many-samples.md).
MIN_SAMPLES = 100
_MOST_SLOWEST = 5
_MOST_NAMED = 5

TensorsByName = Mapping[str, TensorStatistics]


@dataclass(frozen=True)
class MethodTrajectory:
    """How far the ranges of one method were from the final ranges at each snapshot.

    Attributes:
        method: Name of the range method.
        p90: 90th percentile over all tensors of `relative_change` to the final range, for each snapshot.
        worst: Maximum over all tensors, for each snapshot.
        slowest: Scales at each snapshot of the tensors that changed most after half of the samples, by name.
    """

    method: str
    p90: list[float]
    worst: list[float]
    slowest: dict[str, list[float]]


@dataclass(frozen=True)
class Trajectory:
    """The convergence of all methods; `samples` are the numbers of samples at the snapshots."""

    samples: list[int]
    methods: list[MethodTrajectory]


@dataclass(frozen=True)
class Stability:
    """Whether the ranges have converged.

    Attributes:
        method: Name of the range method.
        tolerance: Largest relative change of a stable range.
        samples: Number of samples seen.
        stable: Whether no range has changed by more than `tolerance` since half of the samples. False for fewer than
            100 samples, which are too few to judge.
        moving: Tensors whose range has changed by more, and by how much.
    """

    method: str
    tolerance: float
    samples: int
    stable: bool
    moving: dict[str, float]

    def __str__(self) -> str:
        """Describe the result in one sentence that names the tensors which changed most."""
        limit = f"{100 * self.tolerance:g}%"
        if self.stable:
            return (
                f"stable after {self.samples} samples: since half of them, no range of method {self.method} has "
                f"changed by more than {limit}"
            )
        if not self.moving:
            return (
                f"cannot judge after {self.samples} samples whether the ranges are stable: use {MIN_SAMPLES} or more, "
                "in several batches"
            )
        most = sorted(self.moving, key=lambda name: -self.moving[name])
        named = ", ".join(f"{name!r} by {self.moving[name]:.1%}" for name in most[:_MOST_NAMED])
        more = f" and {len(most) - _MOST_NAMED} more" if len(most) > _MOST_NAMED else ""
        return (
            f"not stable after all {self.samples} samples: since half of them, {len(most)} ranges of method "
            f"{self.method} have changed by more than {limit}: {named}{more}; use more data, or a method that depends "
            "less on rare values"
        )


class Convergence:
    """Records the ranges of growing statistics, at numbers of samples that grow by a factor of the square root of 2.

    The samples are counted in the order of the data, so that should be random.

    Args:
        methods: Range methods to record; the first one decides when to stop.
        tolerance: Relative change up to which a range is stable. None: never stop early.
    """

    def __init__(self, methods: Sequence[RangeMethod], tolerance: float | None = None) -> None:
        self.methods = tuple(methods)
        self.tolerance = tolerance
        self._ranges: dict[int, dict[str, list[float]]] = {}  # amax by each method, by samples and tensor

    def update(self, samples: int, tensors: Callable[[], TensorsByName]) -> bool:
        """Take a snapshot if it is due.

        Args:
            samples: Number of samples so far.
            tensors: Returns the statistics so far.

        Returns:
            Whether all ranges are stable, so that no more samples are needed.
        """
        latest = max((count for count in self._ranges if count < samples), default=0)
        if samples < _next_snapshot(latest):
            return False
        self.record(samples, tensors())
        return self.tolerance is not None and self.stability().stable

    def record(self, samples: int, tensors: TensorsByName) -> None:
        """Record the ranges after `samples` samples, unless they were recorded. A later pass adds other tensors."""
        recorded = self._ranges.get(samples, {})
        missing = {name: tensor for name, tensor in tensors.items() if name not in recorded}
        with ThreadPoolExecutor(usable_cores()) as pool:
            ranges = dict(zip(missing, pool.map(self._derive, missing.values()), strict=True))
        self._ranges[samples] = recorded | ranges

    def _derive(self, tensor: TensorStatistics) -> list[float]:
        return [float(method.amax(tensor)) for method in self.methods]

    def stability(self) -> Stability:
        """Whether the ranges of the first method are stable after the samples so far."""
        samples = max(self._ranges)
        since = _halfway(self._ranges, samples)
        tolerance = self.tolerance or 0.0
        moving: dict[str, float] = {}
        if since is not None:
            amax = self._amax()[sorted(self._ranges).index(since) :, :, 0]
            changes = relative_change(amax, amax[-1]).max(axis=0)
            moving = {
                name: float(change)
                for name, change in zip(self._ranges[samples], changes, strict=True)
                if change > tolerance
            }
        enough = since is not None and samples >= MIN_SAMPLES
        return Stability(self.methods[0].name, tolerance, samples, enough and not moving, moving)

    def trajectory(self) -> Trajectory:
        """All snapshots, compared with the last one."""
        samples = sorted(self._ranges)
        names = list(self._ranges[samples[-1]])
        ranges = self._amax()
        since = _halfway(samples, samples[-1])
        late = samples.index(samples[-1] if since is None else since)
        methods = []
        for index, method in enumerate(self.methods):
            amax = ranges[:, :, index]
            changes = relative_change(amax, amax[-1])
            late_changes = changes[late:].max(axis=0)
            rows = np.argsort(-late_changes, kind="stable")[:_MOST_SLOWEST]
            slowest = [row for row in rows if late_changes[row] > 0]
            methods.append(
                MethodTrajectory(
                    method=method.name,
                    p90=np.percentile(changes, 90, axis=1).tolist(),
                    worst=changes.max(axis=1).tolist(),
                    slowest={names[row]: (amax[:, row] / INT8_MAX).tolist() for row in slowest},
                )
            )
        return Trajectory(samples, methods)

    def _amax(self) -> Array:
        """float64 [samples, tensors, methods]."""
        rows = [self._ranges[samples] for samples in sorted(self._ranges)]
        return np.array([[row[name] for name in rows[-1]] for row in rows], np.float64)

    @property
    def settings(self) -> str:
        """What decides when to stop, in words: two runs with equal settings stop at the same sample."""
        return f"{self.tolerance} by {', '.join(method.name for method in self.methods)}"

    @property
    def ranges(self) -> dict[str, dict[str, list[float]]]:
        """All snapshots, as JSON holds them: amax by each method, by samples and tensor."""
        return {str(samples): dict(ranges) for samples, ranges in self._ranges.items()}

    def restore(self, ranges: Mapping[str, Mapping[str, list[float]]]) -> None:
        """Continue from the `ranges` of an interrupted run."""
        self._ranges = {int(samples): dict(recorded) for samples, recorded in ranges.items()}


def all_methods(first: RangeMethod) -> tuple[RangeMethod, ...]:
    """Return `first`, followed by the other methods with their default settings."""
    return first, *(method for method in METHODS.values() if type(method) is not type(first))


def relative_change(ranges: Array, others: Array) -> Array:
    """Return |a - b| / max(a, b) element by element: 0 for equal ranges, also for 0 and 0; 1 if only one is 0."""
    larger = np.maximum(ranges, others)
    return np.asarray(np.abs(ranges - others) / np.where(larger > 0, larger, 1))


def _next_snapshot(samples: int) -> int:
    """The first of 8, 11, 16, 23, 32, 45, ... that is greater than `samples`."""
    count = step = 0
    while (count := round(FIRST_SNAPSHOT * math.sqrt(2) ** step)) <= samples:
        step += 1
    return count


def _halfway(counts: Iterable[int], samples: int) -> int | None:
    """The last of `counts` that is at most half of `samples`, if any."""
    return max((count for count in counts if 2 * count <= samples), default=None)
