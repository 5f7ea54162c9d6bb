"""What people must be warned of, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from trt_ptq.calibration.convergence import Stability
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.output import TRANSFORMED
from trt_ptq.recipe import Recipe
from trt_ptq.report.rows import measured, share_beyond
from trt_ptq.types import TensorSpec

MUCH_CLIPPED = 0.001
NAMED = 5
FAR = 1.25  # a value that far beyond its range is off by a quarter of the range

FLATTERED = (
    "what was repaired or left in float was chosen with the very data that the verdict is on: on new data the loss may "
    "be higher"
)
NONE_IN_INT8 = "no node runs in INT8: all are kept in float, and what is judged is no INT8 model"
UNSEARCHED = (
    "nothing more was repaired or searched, since half of the held-out batches pass the gate; all of them do not: "
    "lower --max-drop, or give more --test-data"
)


def range_warnings(statistics: Statistics, table: CalibrationTable, method: str) -> list[str]:
    """What is suspicious about the chosen ranges, a sentence each."""
    warnings = []
    clipped = {
        name: share_beyond(statistics.tensors[name], table.amax[name] * FAR) for name in measured(statistics, table)
    }
    much = {name: share for name, share in clipped.items() if share > MUCH_CLIPPED}
    if much:
        worst = max(much, key=lambda name: much[name])
        warnings.append(
            f"method {method} clips {len(much)} tensors hard, most of all {worst!r}: {much[worst]:.1%} of its values "
            f"lie more than {FAR - 1:.0%} beyond the range {table.amax[worst]:.4g}: another --method may do better"
        )
    skipped = {name: tensor.nonfinite for name, tensor in statistics.tensors.items() if tensor.nonfinite}
    if skipped:
        name, count = next(iter(skipped.items()))
        warnings.append(
            f"{len(skipped)} tensors had NaN or infinite values, which were skipped, e.g. {count} in {name!r}"
        )
    if table.tensors_without_range:
        warnings.append(f"always zero, so without a range: {', '.join(table.tensors_without_range)}")
    return warnings


def fp32_warnings(kept: Sequence[Fp32Node]) -> list[str]:
    """Which nodes stay in FP32 because of float16's range: one sentence, or none."""
    named = [f"{one.op_type} {one.output!r} ({one.reason})" for one in kept if one.cause == "range"]
    if not named:
        return []
    more = f", and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return [f"{len(named)} nodes stay in FP32, beyond float16's range: {', '.join(named[:NAMED])}{more}"]


def stability_warnings(stability: Stability | None, inputs: Sequence[TensorSpec], profiles_given: bool) -> list[str]:
    """Ranges that `--until-stable` did not find stable; or shape profiles, unless given, of few samples."""
    if stability is None:
        return []
    if not stability.stable:
        return [str(stability)]
    if profiles_given or not any(map(_open_axes, inputs)):
        return []
    return [
        f"shape profiles are of the {stability.samples} samples that were read before the ranges were stable: give "
        "--shape if others are larger"
    ]


def watched_warnings(stability: Stability | None, method: str) -> list[str]:
    """That `--until-stable` watched ranges which are not those taken."""
    if stability is None or not stability.stable or stability.method == method:
        return []
    return [
        f"--until-stable watched ranges by {stability.method}, and those by {method} were taken then, which may not be "
        "stable: give --method"
    ]


def technique_warnings(recipe: Recipe, transformed: bool) -> list[str]:
    """What whoever takes the ranges elsewhere must know; `transformed`: repairs have changed the float model."""
    warnings = []
    if transformed:
        warnings.append(f"the ranges are of {TRANSFORMED}, which repairs made: build implicit engines from that model")
    if "bias-correction" in recipe.techniques:
        warnings.append("bias correction is in model.int8.onnx only: an implicit engine by calibration.cache lacks it")
    return warnings


def _open_axes(one: TensorSpec) -> bool:
    """Whether more than the number of samples is open in the shape of an input."""
    return one.shape is None or any(isinstance(axis, str) for axis in one.shape[1:])
