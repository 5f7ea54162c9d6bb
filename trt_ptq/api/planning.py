"""`read_plan`, `plan_engine` and `compare_plans`: the kernels of engines, without running them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.api.engine import build_engine
from trt_ptq.api.inputs.model_input import ModelLike
from trt_ptq.api.inputs.table_input import TableLike
from trt_ptq.config import ShapeLike, parse_shapes
from trt_ptq.engines.cost import DEFAULT_GPU, load_gpu
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_comparison import PlanComparison
from trt_ptq.engines.plans.plan_comparison import compare_plans as _compare_plans
from trt_ptq.engines.running.stored_plan import read_engine_plan
from trt_ptq.engines.spec import Precision
from trt_ptq.types import ShapeProfile


def read_plan(path: str | os.PathLike[str]) -> EnginePlan:
    """Read the plan of an engine: its kernels, with types, bytes, multiply-accumulates and ONNX nodes.

    Args:
        path: an engine, whose plan is kept beside it, or is inspected on the GPU; a .plan.json; the JSON of TensorRT's
            engine inspector (`trtexec --exportLayerInfo`); or a log of TensorRT-RTX's builder (.log, .txt).

    Returns:
        The plan. Its `warnings` say what could not be read.

    Raises:
        EngineError: the file cannot be read; or the engine has no plan beside it, and cannot be inspected here.
        MissingPackageError: the TensorRT that would inspect it is not installed.
    """
    return read_engine_plan(Path(path))


def plan_engine(
    model: ModelLike,
    *,
    shapes: Mapping[str, ShapeLike] | None = None,
    table: TableLike | None = None,
    nodes_to_exclude: str | Sequence[str] = (),
    precision: Precision | None = None,
    backend: str = "rtx",
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
) -> EnginePlan:
    """Build a model in a temporary folder, and read the plan of its engine.

    Args:
        model: see `build_engine`.
        shapes: the shape of each input with dynamic sizes; of a profile, the one in the middle.
        table: see `build_engine`.
        nodes_to_exclude: see `build_engine`.
        precision: see `build_engine`.
        backend: "rtx" (TensorRT for RTX, which needs no GPU), "trt" (TensorRT, on its GPU) or "auto".
        example_inputs: see `build_engine`.
        dynamic_shapes: see `build_engine`.

    Returns:
        The plan, with all sizes known.

    Raises:
        ModelError, TableError, UsageError, EngineError, MissingPackageError, OutputError: see `build_engine`.
    """
    profiles = parse_shapes(shapes or {})
    with temporary_folder() as folder:
        engine = folder / "model.engine"
        build_engine(
            model,
            engine,
            table=table,
            nodes_to_exclude=nodes_to_exclude,
            precision=precision,
            shapes={name: ShapeProfile(*[profile.optimum] * 3) for name, profile in profiles.items()},
            backend=backend,
            example_inputs=example_inputs,
            dynamic_shapes=dynamic_shapes,
        )
        return read_engine_plan(engine)


def compare_plans(plan: EnginePlan, reference: EnginePlan, gpu: str | os.PathLike[str] = DEFAULT_GPU) -> PlanComparison:
    """Compare a plan with another plan of the same model, such as INT8 with FP16, layer by layer.

    Args:
        plan: the plan that is judged.
        reference: the plan that it is compared with.
        gpu: the GPU of the estimate: the name of one in the table of data sheets, or a YAML file with its figures.

    Returns:
        The estimates of both, and the layers that `plan` does slower: the costliest first, each with the reasons and
        the change that would mend it.

    Raises:
        UsageError: there is no such GPU, or TensorRT-RTX, which built the engine, does not run on it.
        EngineError: the sizes in a plan are not known.
    """
    return _compare_plans(plan, reference, load_gpu(gpu))
