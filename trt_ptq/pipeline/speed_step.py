"""Does INT8 pay? The INT8 engine of a run against its FP16 engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trt_ptq.engines.cost import Gpu
from trt_ptq.engines.manifest import EngineManifest, read_kept_plan
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_comparison import compare_plans
from trt_ptq.engines.running.benchmark import Benchmark
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import EngineError, UsageError
from trt_ptq.evaluation.compare_engines import MeasuredEngine
from trt_ptq.output import ENGINES
from trt_ptq.speed.engine_comparison import EngineFigures, SpeedComparison, compare_estimates

_BOTH: tuple[Precision, ...] = ("fp16", "int8")


def compare_speed(
    folder: Path, engines: Sequence[EngineManifest], measured: Sequence[MeasuredEngine], gpu: Gpu
) -> tuple[SpeedComparison | None, list[str]]:
    """Compare the engines in `folder`: by their latency if that was measured, else by the estimates of their plans.

    Returns:
        The comparison, None where an engine or its plan is missing; and why it is.
    """
    built = {engine.precision: engine for engine in engines if engine.precision in _BOTH}
    if len(built) < len(_BOTH):
        return None, []
    times: dict[str, Benchmark] = {result.benchmark.precision: result.benchmark for result in measured}
    kept = {name: read_kept_plan(folder / ENGINES[name], engine) for name, engine in built.items()}
    plans = {name: plan for name, plan in kept.items() if plan is not None}
    if all(name in times for name in _BOTH):
        figures = {name: _figures(built[name], times[name].latency.median_ms, plans.get(name)) for name in _BOTH}
        comparison = SpeedComparison(
            basis="measured",
            builder=built["int8"].backend,
            gpu=times["int8"].gpu,
            int8=figures["int8"],
            fp16=figures["fp16"],
        )
        return comparison, []
    if len(plans) < len(_BOTH):
        return None, ["whether INT8 is faster is unknown: the engines were not run, and have no plan to estimate from"]
    try:
        compared = compare_plans(plans["int8"], plans["fp16"], gpu)
    except (EngineError, UsageError) as error:
        return None, [f"whether INT8 is faster is unknown: {error}"]
    sizes = {name: engine.size_bytes for name, engine in built.items()}
    return compare_estimates(compared, sizes, gpu, built["int8"].backend), []


def _figures(engine: EngineManifest, milliseconds: float, plan: EnginePlan | None) -> EngineFigures:
    return EngineFigures(
        size_bytes=engine.size_bytes,
        milliseconds=milliseconds,
        bytes_moved=plan.bytes_moved if plan else None,
        kernels=plan.num_kernels if plan else None,
        constant_bytes=plan.constant_bytes if plan else None,
    )
