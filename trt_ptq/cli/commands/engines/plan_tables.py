"""Plans of engines, and comparisons of two, as tables of at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trt_ptq._internal.listing import counted
from trt_ptq.cli import console
from trt_ptq.engines.cost import LEFT_OUT, Cost
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_comparison import PlanComparison, kernels_by_type
from trt_ptq.engines.plans.slow_layers import SlowLayer
from trt_ptq.engines.running.measured_kernels import MeasuredKernels

_LAYERS = 10  # --json lists all
_NODES = 2


def say_plan(title: str, plan: EnginePlan, cost: Cost, measured: MeasuredKernels | None = None) -> None:
    """Print the kernels by type, with measured times if there are any, their sum, and what the plan does not say."""
    times = cost if measured is None else cost.with_seconds(measured.seconds)
    rows = [
        [
            group.kind,
            group.precision or "(moves data)",
            str(group.kernels),
            f"{group.bytes_moved / 1e6:.1f}",
            f"{group.macs / 1e9:.2f}",
            f"{group.seconds * 1e3:.3f}",
        ]
        for group in kernels_by_type(times)
    ]
    console.print_table(
        ["kernel type", "computes in", "kernels", "MB moved", "GMACs", "est. ms" if measured is None else "ms"],
        rows,
        title,
    )
    console.say(
        f"{plan.num_kernels} kernels, {plan.bytes_moved / 1e6:.1f} MB moved, {plan.macs / 1e9:.2f} GMACs, "
        f"reformats: {len(plan.reformats)}; {plan.constant_bytes / 1e6:.1f} MB of weights and constants"
    )
    bounds = ", ".join(f"{count} by {bound}" for bound, count in sorted(cost.bounds().items()))
    console.say(f"estimate for {cost.gpu.name}: {cost.seconds * 1e3:.3f} ms (kernels bound: {bounds})")
    if measured is not None:
        _say_judged(measured, cost)
    for warning in plan.warnings:
        console.warn(warning)


def _say_judged(measured: MeasuredKernels, cost: Cost) -> None:
    judged = measured.judge(cost)
    if not judged.measured:
        text = "no kernel of the plan"
    elif cost.gpu.device in ("", measured.gpu):
        ratio = judged.estimated / judged.measured
        text = (
            f"{judged.measured * 1e3:.3f} ms, kernel by kernel; the estimate for {cost.gpu.name} is {ratio:.2f} x that"
        )
    else:
        text = f"{judged.measured * 1e3:.3f} ms, kernel by kernel; the estimate is for another GPU"
    console.say(f"measured on {measured.gpu}: {text}")
    if judged.unknown or judged.unmeasured:
        console.warn(
            f"{len(judged.unknown)} kernels were measured that the plan does not have, {len(judged.unmeasured)} of the "
            "plan were not measured, and keep their estimate"
        )


def say_left_out() -> None:
    """Print what every estimate leaves out."""
    console.say(f"An estimate from data sheets leaves out: {'; '.join(LEFT_OUT)}.")


def say_comparison(compared: PlanComparison, name: str, other: str) -> None:
    """Print both plans in all, and the layers that the first one does slower."""
    moved = [sum(found.kernel.bytes_moved for found in cost.kernels) for cost in (compared.cost, compared.reference)]
    counts = [len(cost.kernels) for cost in (compared.cost, compared.reference)]
    console.say(
        f"{name} against {other}: {counts[0]} kernels against {counts[1]}, {moved[0] / moved[1]:.2f} x the bytes, "
        f"{compared.slowdown:.2f} x the estimated time on {compared.cost.gpu.name}"
    )
    for warning in compared.warnings:
        console.warn(warning)
    layers = compared.slow_layers
    if not layers:
        if compared.paired:
            console.say("no layer is estimated slower")
        return
    lost = sum(layer.lost_seconds for layer in layers)
    console.print_table(
        ["layer", "kernels", "MB moved", "est. us", "lost us"],
        [
            [
                _nodes(layer),
                f"{layer.cost.kernels} / {layer.reference.kernels}",
                f"{layer.cost.bytes_moved / 1e6:.1f} / {layer.reference.bytes_moved / 1e6:.1f}",
                f"{layer.cost.seconds * 1e6:.1f} / {layer.reference.seconds * 1e6:.1f}",
                f"{layer.lost_seconds * 1e6:.1f}",
            ]
            for layer in layers[:_LAYERS]
        ],
        f"slower by the estimate: {counted(len(layers), 'layer')}, by {lost * 1e3:.3f} ms together:",
    )
    if len(layers) > _LAYERS:
        console.say(f"... and {len(layers) - _LAYERS} more (--json)")
    for reason, reasoned in _by_reason(layers):
        console.say(f"- {reason}: {_names(reasoned)}")
    for change, mended in _by_change(layers):
        console.say(f"- {_names(mended)}: {change}")
    if exclude := suggested_exclusions(compared):
        console.say(
            f"To mend: exclude {counted(len(exclude), 'node')} of these from quantization (--exclude; named by --json)."
        )


def suggested_exclusions(compared: PlanComparison) -> list[str]:
    """The quantized nodes of all layers that are estimated slower."""
    return [node for layer in compared.slow_layers for node in layer.exclude]


def cost_document(plan: EnginePlan, cost: Cost, measured: MeasuredKernels | None = None) -> dict[str, Any]:
    """A plan, its estimate and what was measured, for --json."""
    return {
        "measured": measured and {**asdict(measured), "judged": asdict(measured.judge(cost))},
        **plan.model_dump(mode="json"),
        "num_kernels": plan.num_kernels,
        "bytes_moved": plan.bytes_moved,
        "constant_bytes": plan.constant_bytes,
        "macs": plan.macs,
        "estimate": {
            "gpu": cost.gpu.model_dump(),
            "seconds": cost.seconds,
            "left_out": LEFT_OUT,
            "kernels": [
                {"name": found.kernel.name, "seconds": found.seconds, "bound": found.bound} for found in cost.kernels
            ],
        },
    }


def _nodes(layer: SlowLayer) -> str:
    names = layer.exclude or layer.nodes
    return " + ".join(names[:_NODES]) + (f" + {len(names) - _NODES}" if len(names) > _NODES else "") or "(no product)"


def _names(layers: Sequence[SlowLayer]) -> str:
    more = f" and {len(layers) - _NODES} more" if len(layers) > _NODES else ""
    return ", ".join(_nodes(layer) for layer in layers[:_NODES]) + more


def _by_change(layers: Sequence[SlowLayer]) -> list[tuple[str, list[SlowLayer]]]:
    """Layers by the change that mends them, other than to exclude them."""
    groups: dict[str, list[SlowLayer]] = {}
    for layer in layers:
        if layer.change and not layer.exclude:
            groups.setdefault(layer.change, []).append(layer)
    return list(groups.items())


def _by_reason(layers: Sequence[SlowLayer]) -> list[tuple[str, list[SlowLayer]]]:
    """Layers by reason, those reasons first that most layers have; what differs by layer in a reason is left out."""
    groups: dict[str, list[SlowLayer]] = {}
    for layer in layers:
        for reason in layer.reasons:
            groups.setdefault(reason.split(":")[0], []).append(layer)
    return sorted(groups.items(), key=lambda item: -sum(layer.lost_seconds for layer in item[1]))
