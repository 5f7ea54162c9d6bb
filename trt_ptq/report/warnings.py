"""Warnings about the result of a run, one sentence each. Parameters are named in backticks, as in errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from trt_ptq._internal.listing import counted, first_few
from trt_ptq.calibration.convergence import Stability
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.data.shape_profiles import limited_axes, shape_options, wider_profile
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.evaluation.verdict import Verdict
from trt_ptq.fp16.attention_masks import ClampedMask
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.output import TRANSFORMED
from trt_ptq.qdq.factored import PerChannel
from trt_ptq.recipe import Recipe
from trt_ptq.report.rows import calibrated_tensors, fraction_beyond
from trt_ptq.types import ShapeProfile, TensorSpec

_MAX_CLIPPED = 0.001  # fraction of the values of a tensor
_FAR = 1.25  # values that far beyond the range are off by a quarter of the range
_NUM_EXAMPLES = 5

_OPTIMISTIC = (
    "the verdict is optimistic: techniques and excluded layers were selected on the same data; expect less accuracy on "
    "unseen data. For an unbiased verdict, "
)
JUDGED_BY_FP32 = (
    "the model is a language model, and no text was given: INT8 is judged by how far its next-token distributions are "
    "from those of FP32. Give text, with `task=text-generation`, and perplexity decides"
)
WEIGHT_ONLY_ON_RTX = (
    "a decode step may move more bytes than in FP16: TensorRT-RTX dequantizes the weights of weight-only layers in "
    "kernels of their own where a call has a single token (2.2 times the bytes for SmolLM2-135M). Read the plan of a "
    "decode step (`trt-ptq plan`) before you deploy it, or use `mode=w8a8`"
)
NO_INT8_NODES = "no node runs in INT8: all are excluded, so the verdict is not on an INT8 model"
ENGINES_PENDING = "the engines were not built: the run ended before"
TUNING_SKIPPED = (
    "on the data that candidates are selected on, with FP32 around INT8, the model meets `max_drop`, so no recovery "
    "was attempted; on the data of the verdict, or with FP16 around INT8, it does not: lower `max_drop`, or {}"
)
SELECTION_PASSED = (
    "on the data that candidates are selected on, with FP32 around INT8, the result loses {} and meets `max_drop`; on "
    "the data of the verdict, or with FP16 around INT8, it does not: lower `max_drop`, or {}"
)


def range_warnings(
    statistics: Statistics, table: CalibrationTable, methods: Sequence[str], used: Collection[str] | None = None
) -> list[str]:
    """Warn of ranges that clip much, of values that were skipped, and of tensors without a range.

    Args:
        statistics: the statistics that the ranges come from.
        table: the ranges.
        methods: names of the range methods.
        used: the tensors whose ranges the INT8 model uses, as others clip nothing; None if there is no model yet.
    """
    warnings = []
    clipped = {
        name: fraction_beyond(statistics.tensors[name], table.amax[name] * _FAR)
        for name in calibrated_tensors(statistics, table)
        if used is None or name in used
    }
    heavily = {name: fraction for name, fraction in clipped.items() if fraction > _MAX_CLIPPED}
    if heavily:
        worst = max(heavily, key=lambda name: heavily[name])
        by = (
            f"method {methods[0]} clips"
            if len(methods) == 1
            else f"methods {', '.join(methods[:-1])} and {methods[-1]} clip"
        )
        warnings.append(
            f"{by} {counted(len(heavily), 'tensor')} heavily; the worst is {worst!r}: {heavily[worst]:.1%} of "
            f"its values lie more than {_FAR - 1:.0%} beyond its range of {table.amax[worst]:.4g}. Another `method` "
            "may be more accurate"
        )
    skipped = {name: tensor.nonfinite for name, tensor in statistics.tensors.items() if tensor.nonfinite}
    if skipped:
        name, count = next(iter(skipped.items()))
        warnings.append(
            f"{counted(len(skipped), 'tensor')} had NaN or infinite values, which were skipped, e.g. {count} in "
            f"{name!r}"
        )
    if table.tensors_without_range:
        warnings.append(f"no range, because they are always zero: {', '.join(table.tensors_without_range)}")
    return warnings


def fp32_warnings(nodes: Sequence[Fp32Node]) -> list[str]:
    """Warn of nodes that stay in FP32 because of their values; the epsilons of normalizations are no reason to warn."""
    named = [f"{node.op_type} {node.output!r} ({node.reason})" for node in nodes if node.cause == "range"]
    if not named:
        return []
    some = f"{len(named)} of them " if len(named) < len(nodes) else ""
    return [
        f"{len(nodes)} nodes stay in FP32, {some}as float16 cannot hold their values: {first_few(named, _NUM_EXAMPLES)}"
    ]


def more_data(has_own_data: bool) -> str:
    """What to give for a selection and a verdict that agree; `has_own_data`: the user's metric has its own."""
    return "let `evaluate` use more samples" if has_own_data else "provide more `test_data`"


def optimistic_verdict(has_own_data: bool) -> str:
    """Say that the verdict is on the data that was selected on; `has_own_data`: the user's metric has its own."""
    unbiased = "let `evaluate` take the split as its second argument" if has_own_data else "give more `test_data`"
    return _OPTIMISTIC + unbiased


def engines_not_evaluated(error: Exception) -> str:
    """Say why the verdict is not on the engines, though there is a GPU."""
    return f"the verdict is on ONNX Runtime's emulation, since the engines could not be evaluated: {error}"


def emulation_differs(verdict: Verdict) -> str:
    """Say what the verdict on the ONNX models was, where the engines got another one."""
    return (
        f"the engines and their emulation differ: the INT8 model in ONNX Runtime is {verdict}. Compare them tensor by "
        "tensor: trt-ptq compare model.int8.onnx model.int8.engine --data DATA --layers"
    )


def refused_warning(nodes: Sequence[str]) -> str:
    """Name the nodes that the builder refused, and say what that means for the results."""
    named = first_few([*map(repr, nodes)], _NUM_EXAMPLES)
    return (
        f"the builder has no INT8 implementation for {named}: excluded from quantization. recipe.yaml, the INT8 "
        "model, the tables, the verdict and the engine are all without them"
    )


def mask_warnings(masks: Sequence[ClampedMask]) -> list[str]:
    """Name the mask constants that differ in the FP16 model where that might change outputs, and what is assumed."""
    names = [f"{mask.name!r} ({mask.clamped:g} for {mask.value:.4g})" for mask in masks if mask.assumed]
    if not names:
        return []
    return [
        "constants of attention masks are smaller where the model is FP16, which changes no output unless a row of "
        "scores is masked as a whole: no row of the data that was measured is: " + first_few(names, _NUM_EXAMPLES)
    ]


def per_channel_warnings(convolutions: Sequence[PerChannel]) -> list[str]:
    """Warn of convolutions that are not in the factored form of TensorRT-RTX."""
    if not convolutions:
        return []
    names = first_few([f"{kept.output!r} ({kept.reason})" for kept in convolutions], _NUM_EXAMPLES, "; ")
    return [f"{len(convolutions)} convolutions keep per-channel scales, and write float32 in TensorRT-RTX: {names}"]


def profile_warnings(profiles: Mapping[str, ShapeProfile], inputs: Sequence[TensorSpec]) -> list[str]:
    """Warn of engines that accept only the sizes that the calibration data held; offers a wider range."""
    limits, wider = [], {}
    for spec in inputs:
        profile = profiles.get(spec.name)
        if profile is None:
            continue
        wider[spec.name] = wider_profile(profile, spec)
        for axis in limited_axes(profile, spec):
            low, high = profile.minimum[axis], profile.maximum[axis]
            sizes = str(low) if low == high else f"{low} to {high}"
            limits.append(f"{sizes} on axis {axis} ({spec.shape[axis]!r}) of {spec.name!r}")
    if not limits:
        return []
    return [
        "the engines accept only the sizes that the calibration data held: "
        f"{first_few(limits, _NUM_EXAMPLES, '; ')}. Where inputs may have other sizes, set a range for all dynamic "
        f"inputs, such as {' '.join(f'`shapes={option}`' for option in shape_options(wider))}"
    ]


def engine_size_warnings(engines: Sequence[EngineManifest]) -> list[str]:
    """Warn of an INT8 engine that is larger than the FP16 engine."""
    sizes = {engine.precision: engine.size_bytes for engine in engines}
    if "fp16" not in sizes or sizes.get("int8", 0) <= sizes["fp16"]:
        return []
    return [
        f"the INT8 engine ({sizes['int8'] / 1e6:.2f} MB) is larger than the FP16 engine ({sizes['fp16'] / 1e6:.2f} "
        "MB): INT8 may not pay off for this model; measure both with `trt-ptq bench`"
    ]


def stability_warnings(stability: Stability | None, inputs: Sequence[TensorSpec], profiles_given: bool) -> list[str]:
    """Warn of ranges that never became stable, and of shape profiles that were derived from few samples."""
    if stability is None:
        return []
    if not stability.stable:
        return [str(stability)]
    if profiles_given or not any(map(_has_dynamic_axes, inputs)):
        return []
    return [
        f"the shape profiles come from the {stability.samples} samples that were read until the ranges were stable: "
        "set `shapes` if other inputs are larger"
    ]


def stability_method_warnings(stability: Stability | None, methods: Sequence[str]) -> list[str]:
    """Warn if the ranges of other methods than the selected ones were checked for stability."""
    others = [] if stability is None else [method for method in methods if method != stability.method]
    if stability is None or not stability.stable or not others:
        return []
    return [
        f"`until_stable` checked the ranges of {stability.method}, but {' and '.join(others)} was selected, whose "
        "ranges may not be stable: set `method`"
    ]


def technique_warnings(recipe: Recipe, transformed: bool) -> list[str]:
    """Warn of what an implicit engine needs to match the INT8 model.

    `transformed`: the ranges are those of a float model that techniques changed.
    """
    if recipe.target == "rtx":  # has no implicit quantization
        return []
    warnings = []
    if transformed:
        warnings.append(
            f"techniques changed the float model, and the ranges fit only the changed one: build implicit engines from "
            f"{TRANSFORMED}"
        )
    if "bias-correction" in recipe.techniques:
        warnings.append("model.int8.onnx has bias correction; an implicit engine built with calibration.cache has not")
    return warnings


def _has_dynamic_axes(spec: TensorSpec) -> bool:
    """Whether an axis other than the batch axis is dynamic."""
    return any(isinstance(axis, str) for axis in spec.shape[1:])
