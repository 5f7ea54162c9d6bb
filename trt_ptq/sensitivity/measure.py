"""What INT8 costs layer by layer: one layer in INT8 and the rest in float, and the other way round.

Both are measured on tensors that were recorded in one run of the whole model, so that only what a layer's change
reaches is computed again; see analysis/subgraph.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import onnx_ir as ir

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.evaluation.error_energy import ErrorEnergy, cost, total
from trt_ptq.evaluation.metrics import Evaluate, Metrics, evaluate_model
from trt_ptq.evaluation.onnx_runner import temporary_model_file
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.insert import insert_pairs, plan_qdq
from trt_ptq.qdq.plan import QuantizationPlan
from trt_ptq.sensitivity.layers import Layer, LayerInputReader, int8_layers
from trt_ptq.sensitivity.local_error import measure_local
from trt_ptq.sensitivity.recorder import ActivationRecorder, recording
from trt_ptq.types import BatchSource, ProgressCallback, no_progress


@dataclass(frozen=True)
class LayerSensitivity:
    """What INT8 costs in one layer, by the name of its first output.

    `alone` is the energy of the error over that of the signal, at the model output where that is worst, with only this
    layer in INT8, and `all_but` with all layers in INT8 but this one (None: not measured). NaN is worse than any.
    At the layer's own output, `weights_db`, `activations_db` and `both_db` are the SQNR with only its weights, only its
    activations or both in INT8 (None: it has no such). `clipping_share` of the error in its activations comes
    from clipping and the rest from rounding (None: no error, or no activation). `metrics` are the user's, with only
    this layer in INT8.
    """

    node: str
    op_type: str
    alone: float
    all_but: float | None = None
    weights_db: float | None = None
    activations_db: float | None = None
    both_db: float | None = None
    clipping_share: float | None = None
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """`costs` by layer (`LayerSensitivity.alone`), the highest first. `agreement`: of the worst quarter by the even
    batches, the share that is in that of the odd ones, too."""

    costs: dict[str, float]
    agreement: float


def measure_sensitivity(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    *,
    attention: bool = False,
    nodes_to_exclude: tuple[str, ...] = (),
    all_but_one: bool = True,
    evaluate: Evaluate | None = None,
    eval_name: str = "",
    progress: ProgressCallback = no_progress,
) -> tuple[LayerSensitivity, ...]:
    """Measure all weighted layers, embeddings and residual Adds that INT8 is for, on all of `source`, in graph order.

    All runs on ONNX Runtime's CPU, with Q/DQ computed in float. With `evaluate` (see `evaluate_model`) the whole model
    is judged once a layer.

    Raises:
        TableError, ModelError, UsageError: see `insert_qdq`; or outputs that cannot be compared.
        DataError: no batches, one that the model fails on, or see `evaluate_model`.
        OutputError: no room for activations in the temporary folder.
    """
    copy = model.to_ir()

    def plans(kept: tuple[str, ...]) -> QuantizationPlan:
        return plan_qdq(model, copy.graph, table, (*nodes_to_exclude, *kept), attention)

    plan = plans(())
    layers = int8_layers(plan)
    inputs = LayerInputReader(copy.graph, model.opset, plan, table)
    with _recorded(model, layers, source, progress) as recorder:
        alone = {
            one.node: total(_alone(recorder, one, inputs)).worst()
            for one in progress(layers, "One layer in INT8", len(layers))
        }
        local = {
            one.node: measure_local(recorder, one, inputs)
            for one in progress(layers, "Layers by themselves", len(layers))
        }
        all_but = _all_but(model, plans, layers, inputs, recorder, source, progress) if all_but_one else {}
    metrics = {}
    if evaluate is not None:
        for one in progress(layers, "Evaluating", len(layers)):
            metrics[one.node] = _metrics(model, plan, table, one, evaluate, eval_name)
    return tuple(
        LayerSensitivity(
            one.node,
            one.op_type,
            alone[one.node],
            all_but.get(one.node),
            metrics=metrics.get(one.node, {}),
            **asdict(local[one.node]),
        )
        for one in layers
    )


def rank_layers(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    attention: bool = False,
    nodes_to_exclude: tuple[str, ...] = (),
    progress: ProgressCallback = no_progress,
) -> Ranking:
    """The weighted layers in INT8 by what they cost with only them in INT8; see `measure_sensitivity`."""
    copy = model.to_ir()
    plan = plan_qdq(model, copy.graph, table, nodes_to_exclude, attention)
    layers = [one for one in int8_layers(plan) if one.op_type != "Add"]
    inputs = LayerInputReader(copy.graph, model.opset, plan, table)
    with _recorded(model, layers, source, progress) as recorder:
        alone = {one.node: _alone(recorder, one, inputs) for one in progress(layers, "Ranking layers", len(layers))}

    def ranked(batches: slice) -> dict[str, float]:
        costs = {node: cost(total(noises[batches]).worst()) for node, noises in alone.items()}
        return dict(sorted(costs.items(), key=lambda one: one[1], reverse=True))

    worst = math.ceil(len(layers) / 4)
    even, odd = (set(list(ranked(slice(start, None, 2)))[:worst]) for start in (0, 1))
    return Ranking(ranked(slice(None)), len(even & odd) / max(worst, 1))


@contextmanager
def _recorded(
    model: Model, layers: list[Layer], source: BatchSource, progress: ProgressCallback
) -> Iterator[ActivationRecorder]:
    """The float model, with all that its layers and their suffixes read."""
    with recording(model.to_ir(), str(model.path)) as recorder:
        tensors = {name for one in layers for name in one.activations.values()}
        for one in layers:
            tensors.update(
                recorder.network.suffix(one.rewiring).live_inputs,
                recorder.network.layer(one.rewiring, one.node).live_inputs,
            )
        recorder.record(tensors, source, progress)
        yield recorder


def _alone(recorder: ActivationRecorder, layer: Layer, inputs: LayerInputReader) -> list[ErrorEnergy]:
    """Of the outputs, batch by batch, with only this layer in INT8."""
    suffix = recorder.open(recorder.network.suffix(layer.rewiring))
    noises = [ErrorEnergy() for _ in range(recorder.batches)]
    for batch, error_energy in enumerate(noises):
        read = inputs.of(layer, recorder, batch)
        for name, array in suffix.run(batch, read.int8).items():
            error_energy.add(name, recorder.value(name, batch), array)
    return noises


def _all_but(
    model: Model,
    plans: Callable[[tuple[str, ...]], QuantizationPlan],
    layers: list[Layer],
    inputs: LayerInputReader,
    reference: ActivationRecorder,
    source: BatchSource,
    progress: ProgressCallback,
) -> Mapping[str, float]:
    """On the whole Q/DQ model, less the Q/DQ that the plan does not have when a layer stays in float."""
    whole, plan = model.to_ir(), plans(())
    insert_pairs(whole.graph, model.opset, plan, inputs.table, plan.inputs)
    changes = {one.node: one.in_float(set(plan.inputs) - set(plans((one.node,)).inputs)) for one in layers}
    found = {}
    with recording(whole, str(model.path)) as recorder:
        del whole
        live = {name for rewiring in changes.values() for name in recorder.network.suffix(rewiring).live_inputs}
        recorder.record(live, source, progress)
        for layer in progress(layers, "All layers but one", len(layers)):
            suffix = recorder.open(recorder.network.suffix(changes[layer.node]))
            error_energy = ErrorEnergy()
            for batch in range(recorder.batches):
                outputs = suffix.run(batch, inputs.exact_weights(layer))
                for name in reference.outputs:
                    got = outputs[name] if name in outputs else recorder.value(name, batch)
                    error_energy.add(name, reference.value(name, batch), got)
            found[layer.node] = error_energy.worst()
    return found


def _metrics(
    model: Model,
    plan: QuantizationPlan,
    table: CalibrationTable,
    layer: Layer,
    evaluate: Evaluate,
    eval_name: str,
) -> Metrics:
    only: ir.Model = model.to_ir()
    insert_pairs(only.graph, model.opset, plan, table, layer.inputs)
    with temporary_model_file(only, "one.onnx") as path:
        return evaluate_model(path, evaluate, eval_name)
