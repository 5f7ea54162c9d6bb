"""How fast an engine runs: latency and throughput by CUDA events, beside its size and device memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.errors import UsageError
from trt_ptq.types import Feeds, sample_count


@dataclass(frozen=True)
class Latency:
    """Of `runs` runs on the device, one after the other, without the copies to and from the host.

    `throughput` is in samples per second, `batch` the samples of one run.
    """

    runs: int
    batch: int
    median_ms: float
    p99_ms: float
    throughput: float


@dataclass(frozen=True)
class Benchmark:
    """One engine, measured on `gpu`; `device_memory_bytes` is TensorRT's own figure for activations and scratch."""

    engine: str
    precision: str
    gpu: str
    shapes: dict[str, tuple[int, ...]]
    size_bytes: int
    device_memory_bytes: int
    latency: Latency


def summarize(times_ms: Sequence[float], batch: int) -> Latency:
    """Median and 99th percentile (linear interpolation) of `times_ms`; throughput over their sum.

    Raises:
        UsageError: no times, or one that no clock gives.
    """
    times = np.asarray(times_ms, dtype=np.float64)
    if times.size == 0 or not np.isfinite(times).all() or times.sum() <= 0:
        raise UsageError(f"a latency needs measured times: got {times.size} of them, {times.sum():g} ms in all")
    median, p99 = np.percentile(times, [50, 99])
    return Latency(times.size, batch, float(median), float(p99), float(batch * times.size / (times.sum() / 1000)))


def benchmark(session: EngineSession, feeds: Feeds, runs: int = 200, warm_up: int = 20) -> Benchmark:
    """Measure `session` on one batch.

    Raises:
        EngineError: the engine does not take the batch, or fails on it.
        UsageError: `runs` is below 1.
    """
    if runs < 1:
        raise UsageError(f"a latency needs at least one run, not {runs}")
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
