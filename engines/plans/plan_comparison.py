"""Compares two plans of one model: in all, by kernel type and precision, and layer by layer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from trt_ptq.engines.cost import Cost, Gpu, estimate
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.slow_layers import SlowLayer, find_slow_layers


@dataclass(frozen=True)
class PlanComparison:
    """A plan against `reference`, a plan of the same model in FP16, say; times are estimates.

    `slow_layers` are those that the plan does slower, the costliest first; none are known unless layers were `paired`.
    """

    cost: Cost
    reference: Cost
    slow_layers: tuple[SlowLayer, ...]
    warnings: tuple[str, ...] = ()
    paired: bool = True

    @property
    def slowdown(self) -> float:
        """Estimated time of the plan, divided by that of the reference: below 1 is faster."""
        return self.cost.seconds / self.reference.seconds


@dataclass(frozen=True)
class KernelsOfType:
    """All kernels of one type that compute in one precision (None: that only move data)."""

    kind: str
    precision: str | None
    kernels: int
    bytes_moved: int
    macs: int
    seconds: float


def compare_plans(plan: EnginePlan, reference: EnginePlan, gpu: Gpu) -> PlanComparison:
    """Compare a plan with another plan of the same model.

    Raises:
        EngineError, UsageError: see `estimate`.
    """
    warnings = []
    if (plan.source, plan.version) != (reference.source, reference.version):
        warnings.append(
            f"the plans are of {plan.source} {plan.version} and {reference.source} {reference.version}: that may "
            "make some of the difference"
        )
    if plan.shapes != reference.shapes:
        warnings.append(f"the plans are for different shapes: {plan.shapes} and {reference.shapes}")
    if "float16" in _dtypes(reference) and "float16" not in _dtypes(plan):
        warnings.append(
            "the plan has FP32 where it has no INT8, and its reference has FP16, which makes part of the difference: "
            "quantize by the calibration.json of `trt-ptq quantize`, or by `trt-ptq qdq --high-precision fp16`"
        )
    cost, before = estimate(plan, gpu), estimate(reference, gpu)
    slow = tuple(find_slow_layers(plan, reference, gpu))
    paired = not plan.macs or not _nodes_with_macs(plan).isdisjoint(_nodes_with_macs(reference))
    if not paired:
        slow = ()
        warnings.append(
            "the plans have no layer in common, so they are compared as a whole only: they are of different models, or "
            "do not name the ONNX nodes in their kernels"
        )
    return PlanComparison(cost, before, slow, tuple(warnings), paired)


def _nodes_with_macs(plan: EnginePlan) -> set[str]:
    return {node for kernel in plan.kernels if kernel.macs for node in kernel.nodes}


def _dtypes(plan: EnginePlan) -> set[str]:
    tensors = (tensor for kernel in plan.kernels for tensor in (*kernel.inputs, *kernel.constants, *kernel.outputs))
    return {tensor.dtype for tensor in tensors}


def kernels_by_type(cost: Cost) -> list[KernelsOfType]:
    """The kernels of an estimate by type and precision, those that take longest first."""
    groups = defaultdict(list)
    for found in cost.kernels:
        groups[found.kernel.kind, found.kernel.precision].append(found)
    summed = [
        KernelsOfType(
            kind,
            precision,
            len(found),
            sum(cost.kernel.bytes_moved for cost in found),
            sum(cost.kernel.macs or 0 for cost in found),
            sum(cost.seconds for cost in found),
        )
        for (kind, precision), found in groups.items()
    ]
    return sorted(summed, key=lambda group: -group.seconds)
