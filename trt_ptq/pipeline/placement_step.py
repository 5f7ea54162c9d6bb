"""Place: which layers run in INT8 for speed, by the plans of TensorRT-RTX, before tuning looks at accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.library import has_tensorrt_rtx
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_file import load_plan, plan_path
from trt_ptq.engines.spec import EngineSpec, Precision
from trt_ptq.errors import EngineError, TrtPtqError
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.save import save_model
from trt_ptq.pipeline.calibration_step import Calibrated
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.recipe import Recipe
from trt_ptq.speed.placement import Placement, place_layers
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.types import ShapeProfile


@dataclass(frozen=True)
class Placed:
    """The `recipe` that tuning starts from; `placement` is None where no plan was read."""

    recipe: Recipe
    placement: Placement | None = None
    warnings: tuple[str, ...] = ()

    @property
    def excluded(self) -> frozenset[str]:
        """The nodes that run in FP16 for speed, by their first output."""
        return frozenset(self.placement.excluded) if self.placement and self.placement.pays else frozenset()

    @property
    def seconds_saved(self) -> Mapping[str, float]:
        """Estimated seconds that each INT8 layer saves; empty where no plan was read."""
        return self.placement.saved if self.placement else {}


def place(job: QuantizationJob, calibrated: Calibrated, candidates: CandidateBuilder, scratch: Path) -> Placed:
    """Exclude the layers from quantization that are faster in FP16 on TensorRT-RTX, if that is the target.

    Nothing is excluded where TensorRT-RTX is not installed or cannot build the model, or where FP16 stays faster with
    any layers in INT8: what is left of INT8 then is its size.
    """
    recipe = job.recipe
    if not job.places_layers or recipe.target != "rtx" or recipe.high_precision != "fp16" or not has_tensorrt_rtx():
        return Placed(recipe)
    if not job.gpu.rtx:
        reason = f"TensorRT-RTX does not run on {job.gpu.name}"
        return Placed(recipe, warnings=(f"which layers pay in INT8 was not looked for, as {reason}",))
    builder = _PlanBuilder(job, calibrated, candidates, scratch)
    try:
        candidate = candidates.build(recipe)
        weighted = {read.node_output for read in candidate.qdq.plan.inputs if read.axis is not None}
        nodes = [node.output for node in candidate.qdq.nodes if node.is_int8 and node.output in weighted]
        if candidate.high_precision != "fp16" or not nodes:
            return Placed(recipe)
        placement = place_layers(
            builder.int8,
            builder.float16(),
            nodes,
            _names_in_plans(job, nodes),
            job.gpu,
            job.progress,
            job.tuning.max_placement_builds,
            lambda: job.time_limit.is_up,
        )
    except TrtPtqError as error:
        return Placed(recipe, warnings=(f"which layers pay in INT8 was not looked for: {error}",))
    if not placement.pays:
        return Placed(recipe, placement)
    excluded = (*recipe.nodes_to_exclude, *placement.excluded)
    return Placed(recipe.model_copy(update={"nodes_to_exclude": excluded}), placement)


def _names_in_plans(job: QuantizationJob, nodes: list[str]) -> dict[str, str]:
    """The first outputs of `nodes`, by their names in plans, which call a node without a name by its output."""
    names = {name_of(node.outputs[0]): node.name for node in job.model.to_ir().graph if node.outputs}
    return {names.get(output) or output: output for output in nodes}


class _PlanBuilder:
    """Builds candidates in a temporary folder, at the shapes that the engine is optimized for."""

    def __init__(
        self, job: QuantizationJob, calibrated: Calibrated, candidates: CandidateBuilder, scratch: Path
    ) -> None:
        self._job = job
        self._candidates = candidates
        self._onnx, self._engine = scratch / "placed.onnx", scratch / "placed.engine"
        self._profiles = {name: ShapeProfile(*[profile.optimum] * 3) for name, profile in calibrated.profiles.items()}

    def int8(self, excluded: tuple[str, ...]) -> EnginePlan:
        recipe = self._job.recipe
        recipe = recipe.model_copy(update={"nodes_to_exclude": (*recipe.nodes_to_exclude, *excluded)})
        save_model(self._candidates.build(recipe).qdq.model, self._onnx)
        return self._plan("int8")

    def float16(self) -> EnginePlan:
        plain = self._job.recipe.model_copy(update={"techniques": ()})
        save_model(to_float16(self._job.model, self._candidates.amax(plain)), self._onnx)
        return self._plan("fp16")

    def _plan(self, precision: Precision) -> EnginePlan:
        spec = EngineSpec(self._onnx, self._engine, precision, self._job.model.identity, self._profiles)
        if build_engine(spec, "rtx").plan_sha256 is None:
            raise EngineError("TensorRT-RTX did not log the kernels of the engine")
        return load_plan(plan_path(self._engine))
