"""Collects the times of kernels from TensorRT's profiler."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any


class KernelTimes:
    """Collects what `profiler`, an `IProfiler` of TensorRT, is told after each run."""

    def __init__(self, trt: Any) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.profiler = _profiler(trt, self._seconds)

    def clear(self) -> None:
        """Forget the runs so far."""
        self._seconds.clear()

    def median_seconds(self) -> dict[str, float]:
        """Median seconds by name of the kernel, in execution order."""
        return {name: median(times) for name, times in self._seconds.items()}


def _profiler(trt: Any, seconds: defaultdict[str, list[float]]) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            seconds[layer_name].append(ms / 1000)

    return Profiler()
