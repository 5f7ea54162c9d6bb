"""For each activation the range method that does the least harm to the outputs of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from trt_ptq.analysis.subgraph import Rewiring, Use
from trt_ptq.calibrators.methods import COMPARED
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, TableProvenance, derive_table
from trt_ptq.evaluation.error_energy import ErrorEnergy, cost
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.insert import plan_qdq
from trt_ptq.qdq.plan import QuantizationPlan, QuantizedInput
from trt_ptq.recipe import AUTO
from trt_ptq.sensitivity.recorder import ActivationRecorder, recording
from trt_ptq.types import BatchSource, ProgressCallback, no_progress

_SCALE, _ZERO = "trt_ptq.scale", "trt_ptq.zero"


@dataclass(frozen=True)
class _Shared:
    """What is read in INT8 with one range: that of `tensor`."""

    tensor: str
    inputs: tuple[QuantizedInput, ...]

    def change(self) -> Rewiring:
        """Q and DQ with a scale that is fed, in front of these inputs."""
        before: dict[str, list[onnx.NodeProto]] = {}
        reads: dict[Use, str] = {}
        made: set[str] = set()
        zero = helper.make_tensor(_ZERO, TensorProto.INT8, [], [0])
        for one in self.inputs:
            reads[one.node, one.index] = changed = f"trt_ptq.changed.{one.tensor}"
            if changed in made:
                continue
            new = [] if made else [helper.make_node("Constant", [], [_ZERO], value=zero)]
            new += [
                helper.make_node("QuantizeLinear", [one.tensor, _SCALE, _ZERO], [f"{changed}.int8"]),
                helper.make_node("DequantizeLinear", [f"{changed}.int8", _SCALE, _ZERO], [changed]),
            ]
            before.setdefault(one.node, []).extend(new)
            made.add(changed)
        return Rewiring((_SCALE,), reads, before)


def select_methods_per_tensor(
    model: Model,
    statistics: Statistics,
    source: BatchSource,
    attention: bool = False,
    nodes_to_exclude: tuple[str, ...] = (),
    progress: ProgressCallback = no_progress,
) -> CalibrationTable:
    """A table whose ranges each come from that method of `COMPARED` with the least error at the model's outputs.

    One tensor at a time is quantized where the plan reads it in INT8, all else is float; the error is that of
    `LayerSensitivity.alone`, over all of `source`. What takes the range of another tensor is quantized with it. Equal
    ranges are tried once; of equally good ones, and for tensors that nothing reads in INT8, the first method is taken.
    `CalibrationTable.methods` says which method each range is of.

    Raises:
        TableError, ModelError, UsageError: see `insert_qdq`; or outputs that cannot be compared.
        DataError: no batches, or one that the model fails on.
        OutputError: no room for activations in the temporary folder.
    """
    tables = {method.name: derive_table(statistics, method) for method in COMPARED}
    usual = COMPARED[0].name
    methods = dict.fromkeys(tables[usual].amax, usual)
    plan = plan_qdq(model, model.to_ir().graph, tables[usual], nodes_to_exclude, attention)
    groups = _shared_ranges(plan, statistics)
    with recording(model.to_ir(), str(model.path)) as recorder:
        recorder.record(
            {name for one in groups for name in recorder.network.suffix(one.change()).live}, source, progress
        )
        for one in progress(groups, "Choosing ranges", len(groups)):
            amax = {name: table.amax[one.tensor] for name, table in tables.items() if one.tensor in table.amax}
            methods[one.tensor] = _least_harmful(recorder, one, amax)
    for name, measured in statistics.shares_range.items():
        if measured in methods:
            methods[name] = methods[measured]
    return CalibrationTable(
        amax={name: tables[method].amax[name] for name, method in methods.items()},
        provenance=TableProvenance(statistics.model, statistics.data, AUTO, statistics.tools),
        tensors_without_range=tables[usual].tensors_without_range,
        methods=methods,
    )


def _shared_ranges(plan: QuantizationPlan, statistics: Statistics) -> list[_Shared]:
    """The activations of the plan by the measured tensor that their range is of."""
    inputs: dict[str, list[QuantizedInput]] = {}
    for one in plan.inputs:
        if one.axis is None:
            tensor = plan.range_of(one.tensor)
            inputs.setdefault(statistics.shares_range.get(tensor, tensor), []).append(one)
    return [_Shared(tensor, tuple(some)) for tensor, some in inputs.items()]


def _least_harmful(recorder: ActivationRecorder, shared: _Shared, amax: Mapping[str, float]) -> str:
    """The method with the least error, of those in `amax`; the first one where several have."""
    first_of = {value: name for name, value in reversed(list(amax.items()))}
    distinct = {name: amax[name] for name in amax if first_of[amax[name]] == name}
    if len(distinct) == 1:
        return next(iter(distinct))
    suffix = recorder.open(recorder.network.suffix(shared.change()))
    noise = {name: ErrorEnergy() for name in distinct}
    for batch in range(recorder.batches):
        for name, value in distinct.items():
            scale = CalibrationTable({shared.tensor: value}).scale(shared.tensor)
            for output, array in suffix.run(batch, {_SCALE: np.array(scale)}).items():
                noise[name].add(output, recorder.value(output, batch), array)
    return min(distinct, key=lambda name: cost(noise[name].worst()))
