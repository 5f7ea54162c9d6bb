"""Benchmarks of engines: latency and throughput by CUDA events, file size and device memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.errors import UsageError
from trt_ptq.types import Feeds, sample_count


@dataclass(frozen=True)
class Latency:
    """Latency of `runs` consecutive runs on the device, without the copies from and to the host.

    `batch` is the number of samples in a run, `throughput` is in samples per second.
    """

    runs: int
    batch: int
    median_ms: float
    p99_ms: float
    throughput: float


@dataclass(frozen=True)
class Benchmark:
    """Measurements of one engine on `gpu`; `device_memory_bytes` is what TensorRT needs for activations and scratch."""

    engine: str
    precision: str
    gpu: str
    shapes: dict[str, tuple[int, ...]]
    size_bytes: int
    device_memory_bytes: int
    latency: Latency


def summarize(times_ms: Sequence[float], batch: int) -> Latency:
    """Median and 99th percentile (linear interpolation) of the times, and throughput over their sum.

    Args:
        times_ms: time of each run in milliseconds.
        batch: samples in a run.

    Raises:
        UsageError: there are no times, or they are not finite or not positive.
    """
    times = np.asarray(times_ms, dtype=np.float64)
    if times.size == 0 or not np.isfinite(times).all() or times.sum() <= 0:
        raise UsageError(f"`times_ms` has no valid measurements: {times.size} times, {times.sum():g} ms in total")
    median, p99 = np.percentile(times, [50, 99])
    return Latency(times.size, batch, float(median), float(p99), float(batch * times.size / (times.sum() / 1000)))


def benchmark(session: EngineSession, feeds: Feeds, runs: int = 200, warm_up: int = 20) -> Benchmark:
    """Measure an engine on one batch.

    Args:
        session: the loaded engine.
        feeds: input arrays by name.
        runs: number of measured runs.
        warm_up: number of runs before them.

    Raises:
        DataError: the batch does not fit the engine.
        EngineError: the engine fails on the batch.
        UsageError: `runs` is below 1.
    """
    if runs < 1:
        raise UsageError(f"`runs` must be at least 1, not {runs}")
    times = session.time(feeds, runs, warm_up)
    return Benchmark(
        engine=str(session.path),
        precision=session.precision,
        gpu=session.gpu,
        shapes={name: np.shape(array) for name, array in feeds.items()},
        size_bytes=session.path.stat().st_size,
        device_memory_bytes=session.device_memory_bytes,
        latency=summarize(times, sample_count(feeds)),
    )
