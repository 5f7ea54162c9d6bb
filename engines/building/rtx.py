"""Ahead-of-time builds with TensorRT for RTX: strongly typed engines, without a GPU."""

from __future__ import annotations

import logging
from dataclasses import replace

from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.library import tensorrt_rtx
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError
from trt_ptq.types import ShapeProfile

_logger = logging.getLogger(__name__)


def build_rtx(spec: EngineSpec) -> EngineManifest:
    """Build a strongly typed engine and write it with its manifest.

    Raises:
        EngineError: `spec` asks for implicit quantization, the model cannot be parsed, a dynamic dimension has no
            profile, or the builder fails; with its own first error.
        MissingPackageError: tensorrt-rtx is not installed.
        OutputError: the engine cannot be written.
    """
    if spec.implicit is not None:
        raise EngineError(
            "TensorRT-RTX has no implicit quantization: build the Q/DQ model from "
            "`trt-ptq qdq MODEL --table TABLE`, or use `backend=trt` with TensorRT 10"
        )
    build = EngineBuilder(tensorrt_rtx(), spec, strongly_typed=True)
    content = build.plan()
    try:
        engine_plan = _plan_at_optimum(build, spec)
    except EngineError as error:
        engine_plan = None
        _logger.warning("%s is written without its plan: %s", spec.engine, error)
    return build.write(content, ("strongly_typed",), engine_plan=engine_plan)


def _plan_at_optimum(build: EngineBuilder, spec: EngineSpec) -> EnginePlan | None:
    """The kernels of the engine; with dynamic shapes, of a build for the optimum alone, where all sizes are known."""
    if all(-1 not in profile.fixed for profile in spec.profiles.values()):
        return build.engine_plan()
    optimum = {name: ShapeProfile(*[profile.optimum] * 3) for name, profile in spec.profiles.items()}
    build.release_model()  # two models would take twice the memory
    fixed = EngineBuilder(build.library, replace(spec, profiles=optimum), strongly_typed=True)
    fixed.plan()
    plan = fixed.engine_plan()
    if plan is None:
        return None
    shapes = ", ".join(f"{name}={'x'.join(map(str, profile.optimum))}" for name, profile in spec.profiles.items())
    note = f"the engine has dynamic shapes: these are the kernels of a build for {shapes} alone"
    return plan.model_copy(update={"warnings": (note, *plan.warnings)})
