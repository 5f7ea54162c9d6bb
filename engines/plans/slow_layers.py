"""Why INT8 does not pay: the layers that a plan does slower than another plan of the same model, by estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trt_ptq._internal.listing import first_few
from trt_ptq.engines.cost import Gpu, KernelCost, estimate, estimate_kernel
from trt_ptq.engines.plans.datatypes import FLOATS
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.kernel import Kernel
from trt_ptq.engines.plans.paired_layers import PairedLayer, pair_layers

_SHOWN = 3  # nodes in a sentence
_SLOWER = 1.01  # differences below are no finding


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs in a plan: number of kernels, bytes moved, and estimated seconds."""

    kernels: int
    bytes_moved: int
    seconds: float


@dataclass(frozen=True)
class SlowLayer:
    """A layer that is estimated slower than in the plan it is compared with, or was to run in INT8 and does not.

    `nodes` are the ONNX nodes of its products. Each of the `reasons` says what, and after a colon the details. `change`
    is what would mend it, "" if nothing is known to. `exclude` are those of the nodes that the model quantizes.
    """

    nodes: tuple[str, ...]
    cost: LayerCost
    reference: LayerCost
    reasons: tuple[str, ...]
    change: str
    exclude: tuple[str, ...]

    @property
    def lost_seconds(self) -> float:
        """Estimated seconds lost."""
        return self.cost.seconds - self.reference.seconds


def find_slow_layers(plan: EnginePlan, reference: EnginePlan, gpu: Gpu) -> list[SlowLayer]:
    """The layers of `plan` that are estimated slower than in `reference`, a plan of the same model in FP16, say.

    Returns:
        The layers, those that lose the most first.

    Raises:
        EngineError, UsageError: see `estimate`.
    """
    for side in (plan, reference):
        estimate(side, gpu)  # raises where there is none
    groups = pair_layers(plan, reference)
    writer = {tensor.name: group for group in groups for kernel in group.kernels for tensor in kernel.outputs}
    found = []
    for group in groups:
        costs = [estimate_kernel(kernel, gpu) for kernel in group.kernels]
        cost, before = _sum(costs), _sum([estimate_kernel(kernel, gpu) for kernel in group.reference])
        quantized = tuple(node for node in plan.quantized if node in group.nodes)
        not_int8 = _not_int8(group, quantized)
        if cost.seconds > _SLOWER * before.seconds or not_int8:
            island = _float_between_int8(group, writer)
            reasons = (*not_int8, *island, *_reasons(group, costs))
            found.append(SlowLayer(group.nodes, cost, before, reasons, _change(quantized, island), quantized))
    return sorted(found, key=lambda layer: -layer.lost_seconds)


def _sum(costs: Sequence[KernelCost]) -> LayerCost:
    seconds = sum(cost.seconds for cost in costs)
    return LayerCost(len(costs), sum(cost.kernel.bytes_moved for cost in costs), seconds)


def _not_int8(group: PairedLayer, quantized: Sequence[str]) -> list[str]:
    """Nodes that the model quantizes, in a product of another type."""
    other = {
        kernel.precision or "unknown": node
        for kernel in group.kernels
        for node in quantized
        if kernel.macs and node in kernel.nodes and kernel.precision != "int8"
    }
    return [f"was to run in INT8, and does not: {node} runs in {precision}" for precision, node in other.items()]


def _float_between_int8(group: PairedLayer, writer: Mapping[str, PairedLayer]) -> list[str]:
    """A product in float, whose input an INT8 layer makes, and whose result is quantized."""
    if not any(kernel.macs for kernel in group.kernels) or _in_int8(group):
        return []
    written = {tensor.name for kernel in group.kernels for tensor in kernel.outputs}
    read = {tensor.name for kernel in group.kernels for tensor in kernel.inputs} - written
    quantizes = any(tensor.dtype == "int8" for kernel in group.kernels for tensor in kernel.outputs)
    if quantizes and any(_in_int8(writer[name]) for name in read if name in writer):
        return ["runs in float between INT8 layers, which costs two conversions"]
    return []


def _in_int8(group: PairedLayer) -> bool:
    return any(kernel.macs and kernel.precision == "int8" for kernel in group.kernels)


def _reasons(group: PairedLayer, costs: Sequence[KernelCost]) -> Iterable[str]:
    products = [kernel for kernel in group.kernels if kernel.macs]
    before = [kernel for kernel in group.reference if kernel.macs]
    written = {
        tensor.name: tensor.dtype for kernel in products if kernel.precision == "int8" for tensor in kernel.outputs
    }
    finished = {tensor.name for kernel in group.kernels for tensor in kernel.inputs}
    others = [tensor for kernel in group.kernels if not kernel.macs for tensor in kernel.outputs]
    rest = "scales and quantizes" if any(tensor.dtype == "int8" for tensor in others) else "finishes"
    for dtype in sorted({dtype for name, dtype in written.items() if name in finished and dtype in FLOATS}):
        yield f"its INT8 product writes {dtype}, which another kernel {rest}"
    if any("mha" in kernel.name for kernel in before) and not any("mha" in kernel.name for kernel in products):
        yield "attention is no longer one kernel"
    elif len(group.kernels) > len(group.reference) and (lost := _lost_fusion(products, before)):
        yield f"no longer in the kernel of the product: {first_few(lost, _SHOWN)}"
    macs, macs_before = (sum(kernel.macs or 0 for kernel in kernels) for kernels in (products, before))
    if macs_before and macs > 1.01 * macs_before:
        yield f"computes more, as the channels of its groups are padded: {macs / macs_before:.1f} x the MACs"
    constants, constants_before = (_constant_bytes(kernels) for kernels in (group.kernels, group.reference))
    if constants > 2 * constants_before and constants > sum(kernel.bytes_moved for kernel in group.kernels) / 10:
        yield f"reads more constants, such as padding: {constants / 1e6:.1f} MB instead of {constants_before / 1e6:.1f}"
    if costs and all(cost.bound == "launch" for cost in costs):
        yield "too small to gain, as its kernels take less than their launch"


def _lost_fusion(products: Sequence[Kernel], before: Sequence[Kernel]) -> list[str]:
    kept = {node for kernel in products for node in kernel.nodes}
    return list(dict.fromkeys(node for kernel in before for node in kernel.nodes if node not in kept))


def _constant_bytes(kernels: Iterable[Kernel]) -> int:
    return sum(tensor.nbytes for kernel in kernels for tensor in kernel.constants)


def _change(quantized: Sequence[str], island: Sequence[str]) -> str:
    if quantized:
        return f"exclude it (`nodes_to_exclude`): {', '.join(quantized)}"
    return "quantize it, too, or exclude the layers around it" if island else ""
