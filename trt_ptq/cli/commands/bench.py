"""trt-ptq bench"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq.cli import console, options
from trt_ptq.engines.running.benchmark import Benchmark, benchmark
from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.errors import UsageError
from trt_ptq.types import ShapeProfile


def bench(
    engines: Annotated[list[Path], typer.Argument(help="Engine files, the baseline first.", show_default=False)],
    shape: options.Shapes = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs that count, after 20 that do not.")] = 200,
    json: options.Json = False,
) -> None:
    """Measure engines on the GPU: latency, throughput, size and device memory, on random inputs.

    Without --shape (name=SHAPE), each input has the shape that the engine is tuned for. Copies to and from the GPU are
    not counted.

    Example: trt-ptq bench int8/model.fp16.engine int8/model.int8.engine
    """
    profiles = parse_profiles(shape or [])
    measured = [_measure(engine, profiles, runs) for engine in engines]
    if json:
        console.print_json([asdict(one) for one in measured])
        return
    baseline = measured[0].latency.throughput
    console.print_table(
        ["engine", "precision", "batch", "median ms", "p99 ms", "samples/s", "speed", "MB", "device MB"],
        (
            [
                one.engine,
                one.precision,
                str(one.latency.batch),
                f"{one.latency.median_ms:.3f}",
                f"{one.latency.p99_ms:.3f}",
                f"{one.latency.throughput:.0f}",
                f"{one.latency.throughput / baseline:.2f}x",
                f"{one.size_bytes / 1e6:.2f}",
                f"{one.device_memory_bytes / 1e6:.2f}",
            ]
            for one in measured
        ),
        f"{measured[0].gpu}, {runs} runs",
    )


def _measure(engine: Path, profiles: dict[str, ShapeProfile], runs: int) -> Benchmark:
    with EngineSession(engine) as session:
        unknown = sorted(profiles.keys() - set(session.inputs))
        if unknown:
            raise UsageError(f"--shape names unknown inputs {', '.join(unknown)}: {engine} has {session.inputs}")
        feeds = session.example_feeds({name: profile.optimum for name, profile in profiles.items()})
        return benchmark(session, feeds, runs)
