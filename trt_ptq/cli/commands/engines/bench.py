"""trt-ptq bench: engines on the GPU."""

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
    engines: Annotated[list[Path], typer.Argument(help="Engine files; the first is the baseline.", show_default=False)],
    shape: options.Shapes = None,
    runs: Annotated[int, typer.Option(min=1, help="Number of timed runs, after 20 for warm-up.")] = 200,
    json: options.Json = False,
) -> None:
    """Measure latency, throughput, size and device memory of engines on the GPU, with random inputs.

    Inputs have the shapes that the engine is optimized for, unless --shape NAME=SHAPE is given. Copies to and from the
    GPU are not timed.

    Example: trt-ptq bench int8/model.fp16.engine int8/model.int8.engine
    """
    profiles = parse_profiles(shape or [])
    measured = [_measure(engine, profiles, runs) for engine in engines]
    if json:
        console.print_json([asdict(benchmark) for benchmark in measured])
        return
    baseline = measured[0].latency.throughput
    console.print_table(
        ["engine", "prec.", "batch", "median ms", "p99 ms", "samples/s", "speed", "size MB", "device MB"],
        (
            [
                result.engine,
                result.precision,
                str(result.latency.batch),
                f"{result.latency.median_ms:.3f}",
                f"{result.latency.p99_ms:.3f}",
                f"{result.latency.throughput:.0f}",
                f"{result.latency.throughput / baseline:.2f}x",
                f"{result.size_bytes / 1e6:.2f}",
                f"{result.device_memory_bytes / 1e6:.2f}",
            ]
            for result in measured
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
