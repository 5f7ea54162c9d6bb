"""The tensors to calibrate, and the model that has them as outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.analysis.dataflow import activations
from trt_ptq.analysis.op_types import RESHAPING_OPS
from trt_ptq.analysis.plugins import unrunnable_values
from trt_ptq.errors import ModelError, UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.plan import QuantizationPlan, plan_quantization

# Their output rearranges the values of the input, or (max-pooling, concatenation) NVIDIA uses one range for both.
_SAME_RANGE = RESHAPING_OPS | {"MaxPool", "Concat"}

_MEASURABLE = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_OTHER_FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


@dataclass(frozen=True)
class CalibrationTensors:
    """The tensors to calibrate.

    Attributes:
        tensors: Names of the tensors to measure, in graph order.
        shares_range: Tensors that are not measured, mapped to the measured tensor whose range they use.
    """

    tensors: tuple[str, ...]
    shares_range: dict[str, str]


def select_calibration_tensors(
    model: Model, tensors: Sequence[str] = ("fused",), attention: bool = False
) -> CalibrationTensors:
    """Select the tensors to calibrate.

    Args:
        model: The float model.
        tensors: Names of tensors, "fused" for those that a backend with operator fusion quantizes (the inputs of INT8
            nodes), and "all" for every float activation, in any combination.
        attention: For "fused": whether the MatMuls of attention run in INT8 too.

    Raises:
        UsageError: A name is not a float activation of the model.
        ModelError: There is nothing to calibrate.
    """
    graph = model.to_ir().graph
    unrunnable = {value.name for value in unrunnable_values(graph)}
    available = {name for name in activations(graph, _MEASURABLE) if name not in unrunnable}
    ordered = [value.name for value in [*graph.inputs, *(out for node in graph for out in node.outputs)]]
    range_sources: Mapping[str, str] = {}
    chosen = set(tensors) - {"fused", "all"}
    if unknown := sorted(chosen - available):
        raise UsageError(f"{model.path}: the model has no float activation named {', '.join(map(repr, unknown))}")
    if "fused" in tensors:
        plan = plan_quantization(graph, attention=attention)
        range_sources = plan.range_sources
        fused = set(plan.activations) - unrunnable
        if not fused:
            raise ModelError(f"{model.path}: nothing to calibrate: {_why_none(plan, graph)}")
        chosen |= fused
    if "all" in tensors:
        chosen |= available
    if not chosen:
        raise ModelError(f"{model.path}: nothing to calibrate: the model has no float activation of up to 32 bits")
    calibration_tensors = tuple(name for name in ordered if name in chosen)
    return CalibrationTensors(
        calibration_tensors, _find_shared_ranges(graph, calibration_tensors, available, range_sources)
    )


def _why_none(plan: QuantizationPlan, graph: ir.Graph) -> str:
    """Say why no node can run in INT8."""
    if any(value.dtype in _OTHER_FLOATS for node in graph for value in node.outputs):
        return "it computes in float16, bfloat16 or double; use the float32 model that it was converted from"
    if not plan.nodes:
        return "it has no Conv, ConvTranspose, Gemm or MatMul"
    reasons = Counter(node.reason for node in plan.nodes)
    counts = "; ".join(f"{count} of {len(plan.nodes)}: {reason}" for reason, count in reasons.most_common())
    return f"none of its nodes can run in INT8 ({counts})"


def _find_shared_ranges(
    graph: ir.Graph, calibration_tensors: tuple[str, ...], available: set[str], range_sources: Mapping[str, str]
) -> dict[str, str]:
    """Map unmeasured tensors to the measured one whose range they use: by the plan, or through views and pooling."""
    shares: dict[str, str] = dict(range_sources) | {name: name for name in calibration_tensors}
    for node in reversed(graph):
        target = shares.get(node.outputs[0].name or "")
        if node.op_type not in _SAME_RANGE or target is None:
            continue
        for value in node.inputs:
            if value is not None and value.name in available:
                shares.setdefault(value.name, target)
    return {name: target for name, target in shares.items() if name != target}


def runnable_outputs(model: Model) -> tuple[str, ...]:
    """The outputs of the model that do not depend on plugins."""
    unrunnable = {value.name for value in unrunnable_values(model.to_ir().graph)}
    return tuple(name for name in model.outputs if name not in unrunnable)


def model_with_outputs(model: Model, tensors: Sequence[str]) -> ir.Model:
    """Return the part of the model that computes `tensors`, with them as outputs, in order. Weights are shared."""
    part = model.to_ir()
    values = {value.name: value for node in part.graph for value in node.outputs}
    values |= {value.name: value for value in part.graph.inputs}
    part.graph.outputs[:] = [values[name] for name in tensors]
    return passes.RemoveUnusedNodesPass()(part).model
