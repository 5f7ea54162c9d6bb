"""trt-ptq plan: the kernels of an engine, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq.api.planning import plan_engine, read_plan
from trt_ptq.cli import console, options
from trt_ptq.cli.commands.engines.plan_tables import (
    cost_document,
    say_comparison,
    say_left_out,
    say_plan,
    suggested_exclusions,
)
from trt_ptq.engines.cost import DEFAULT_GPU, Gpu, estimate, find_gpu, has_estimate, load_gpu
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_comparison import PlanComparison, compare_plans
from trt_ptq.engines.running.measured_kernels import MeasuredKernels, measure_kernels
from trt_ptq.engines.running.stored_plan import check_planned_shapes
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.errors import DataError, EngineError, MissingPackageError, UsageError
from trt_ptq.types import ShapeProfile

_Shapes = Mapping[str, ShapeProfile]


def plan(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="ENGINE|MODEL",
            help="Engine; ONNX model to build with TensorRT-RTX; or JSON of `trtexec --exportLayerInfo`.",
            show_default=False,
        ),
    ],
    shape: Annotated[
        Optional[list[str]],
        typer.Option(
            "--shape",
            metavar="SHAPE",
            help="Shape of an input of the model, NAME=SHAPE, such as ids=8x64 (repeatable).",
            rich_help_panel=options.ENGINE,
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Optional[Path],
        typer.Option(
            help="Calibration table: plan the float model in INT8.",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    exclude: options.Exclude = None,
    against: Annotated[
        Optional[Path],
        typer.Option(
            metavar="ENGINE|MODEL",
            help="Compare with this engine or model, layer by layer, and say what is slower and why. A float model is "
            "planned in FP16.",
            show_default=False,
        ),
    ] = None,
    gpu: Annotated[
        Optional[str],
        typer.Option(
            help="GPU of the estimate: a name such as rtx4090 or l4, or a YAML file with its figures. Default: the GPU "
            "here if its data sheet is known and the engine is for it, else rtx4090.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="With --table and --against: plan again without the nodes that are estimated slower in INT8.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Show the kernels of an engine: their types and precisions, the bytes they move, and an estimate of their time.

    Needs no GPU: TensorRT-RTX writes the plan of an engine when it builds it, and a model is built in a temporary
    folder. The estimate is a roofline from the data sheet of the GPU; it is no measurement. Where there is a GPU, the
    kernels of an engine are measured, and the estimate is compared with that.

    Example: trt-ptq plan int8/model.int8.engine --against int8/model.fp16.engine

    Example: trt-ptq plan model.onnx --table int8/calibration.json --shape x=8x3x224x224 --against model.onnx --check
    """
    if table is None and exclude:
        raise UsageError("--exclude needs --table")
    if check and (table is None or against is None):
        raise UsageError("--check needs --table and --against: it quantizes the float model again")
    shapes, chosen = parse_profiles(shape or []), None if gpu is None else load_gpu(gpu)
    planned = _plan(source, shapes, table, exclude or [])
    judge = chosen or _default_gpu(planned)
    cost, measured = estimate(planned, judge), _measure(source)
    compared = rechecked = None
    if against is not None:
        reference = _plan(against, shapes)
        compared = compare_plans(planned, reference, judge)
        if check and table is not None:
            rechecked = _check(source, shapes, table, exclude or [], compared, reference, judge)
    if json:
        document = {"source": str(source), "plan": cost_document(planned, cost, measured)}
        if compared is not None:
            document["comparison"] = _comparison_document(compared, str(against))
        if rechecked is not None:
            document["check"] = _comparison_document(rechecked, str(against))
        console.print_json(document)
        return
    name = source.name if table is None else f"{source.name} with {table.name}"
    say_plan(name, planned, cost, measured)
    if compared is not None and against is not None:
        say_comparison(compared, name, against.name)
    if check and rechecked is None:
        console.say("check: no node is suggested for exclusion")
    if compared is not None and rechecked is not None and against is not None:
        console.say(
            f"check: without the {len(suggested_exclusions(compared))} nodes, the estimate is {rechecked.slowdown:.2f} "
            f"x that of {against.name}, instead of {compared.slowdown:.2f} x"
        )
    say_left_out()


def _default_gpu(planned: EnginePlan) -> Gpu:
    """The GPU here, if its data sheet is known and the plan is for it."""
    here = find_gpu(gpu_name() or "")
    return here if here is not None and has_estimate(planned, here) else load_gpu(DEFAULT_GPU)


def _measure(source: Path) -> MeasuredKernels | None:
    """Times of the kernels of an engine where there is a GPU."""
    if source.suffix in (".onnx", ".json", ".log", ".txt") or gpu_name() is None:
        return None
    try:
        return measure_kernels(source)
    except (DataError, EngineError, MissingPackageError) as error:
        console.warn(f"the kernels were not measured: {error}")
        return None


def _plan(source: Path, shapes: _Shapes, table: Path | None = None, exclude: list[str] | None = None) -> EnginePlan:
    if source.suffix == ".onnx":
        return plan_engine(source, shapes=shapes, table=table, nodes_to_exclude=exclude or [])
    if table is not None:
        raise UsageError(f"--table needs a float model: {source} is no ONNX model")
    found = read_plan(source)
    check_planned_shapes(source, found, shapes)
    return found


def _check(
    source: Path,
    shapes: _Shapes,
    table: Path,
    exclude: list[str],
    compared: PlanComparison,
    reference: EnginePlan,
    gpu: Gpu,
) -> PlanComparison | None:
    """The comparison after the change that it suggests; None if it suggests none."""
    suggested = suggested_exclusions(compared)
    if not suggested:
        return None
    return compare_plans(_plan(source, shapes, table, [*exclude, *suggested]), reference, gpu)


def _comparison_document(compared: PlanComparison, other: str) -> dict[str, object]:
    return {
        "against": other,
        "slowdown": compared.slowdown,
        "seconds": compared.cost.seconds,
        "reference_seconds": compared.reference.seconds,
        "slow_layers": [asdict(layer) for layer in compared.slow_layers],
        "nodes_to_exclude": suggested_exclusions(compared),
        "warnings": compared.warnings,
    }
