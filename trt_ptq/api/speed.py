"""Compares an INT8 engine with the FP16 engine of the same float model, which is built for that and not kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.api.engine import build_engine
from trt_ptq.api.inputs.model_input import ModelLike
from trt_ptq.config import ShapeLike
from trt_ptq.engines.cost import DEFAULT_GPU, Gpu, load_gpu
from trt_ptq.engines.manifest import read_kept_plan, read_manifest
from trt_ptq.engines.plans.plan_comparison import compare_plans
from trt_ptq.errors import EngineError
from trt_ptq.speed.engine_comparison import SpeedComparison, compare_estimates


def compare_with_float16(
    model: ModelLike,
    engine: str | os.PathLike[str],
    *,
    shapes: Mapping[str, ShapeLike] | None = None,
    gpu: Gpu | str | os.PathLike[str] = DEFAULT_GPU,
) -> SpeedComparison:
    """Compare an INT8 engine of TensorRT-RTX with the FP16 engine of its float model, by the estimates of their plans.

    Args:
        model: the float model; see `build_engine`.
        engine: the INT8 engine, with its manifest and plan beside it.
        shapes: the shape profiles that the engine was built with.
        gpu: the GPU to estimate for; see `QuantizeConfig`.

    Raises:
        EngineError: the engine has no plan, or the FP16 engine cannot be built.
        ModelError, UsageError, MissingPackageError, OutputError: see `build_engine`.
    """
    chosen, path = gpu if isinstance(gpu, Gpu) else load_gpu(gpu), Path(engine)
    int8 = read_manifest(path)
    plan = read_kept_plan(path, int8)
    if plan is None:
        raise EngineError(f"{path} has no plan of its kernels: measure it with `trt-ptq bench`")
    with temporary_folder() as folder:
        reference = folder / "fp16.engine"
        fp16 = build_engine(model, reference, precision="fp16", shapes=shapes, backend="rtx")
        plan_of_fp16 = read_kept_plan(reference, fp16)
        if plan_of_fp16 is None:
            raise EngineError("the FP16 engine has no plan of its kernels")
        compared = compare_plans(plan, plan_of_fp16, chosen)
    return compare_estimates(compared, {"int8": int8.size_bytes, "fp16": fp16.size_bytes}, chosen, int8.backend)
