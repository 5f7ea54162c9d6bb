"""The sensitivity of each layer to INT8: only that layer quantized, and all layers but that one.

Both are measured on tensors that were recorded in one run of the whole model, so that only the nodes behind a layer are
computed again; see analysis/subgraph.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import onnx_ir as ir

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.evaluation.error_energy import ErrorEnergy, sort_key, total
from trt_ptq.evaluation.metrics import Metrics, UserMetric
from trt_ptq.evaluation.runners.onnx_runner import temporary_model_file
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.insert import insert_pairs, plan_qdq
from trt_ptq.qdq.plan import QuantizationPlan
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.sensitivity.judged_outputs import JudgedOutputs
from trt_ptq.sensitivity.layer_groups import group_layers
from trt_ptq.sensitivity.layers import Layer, LayerInputReader, int8_layers
from trt_ptq.sensitivity.local_error import measure_local
from trt_ptq.sensitivity.recorder import ActivationRecorder, SubgraphRunner, recording
from trt_ptq.types import Array, BatchSource, ProgressCallback, no_progress

_MODEL_NAME = "one_layer.onnx"  # what messages call it


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer costs.

    Error ratios are the energy of the error over that of the signal, at the model output where that is largest; NaN is
    worse than any number. Those of a language model are the mean KL divergence of the next token, in nats.

    Attributes:
        node: name of the layer's first output.
        op_type: its operator.
        alone: error ratio with only this layer in INT8.
        all_but: error ratio with all layers in INT8 but this one; None if not measured.
        weights_db: SQNR in dB at the layer's own output with only its weights in INT8; None if it has none.
        activations_db: the same with only its activations in INT8; None if it has none.
        both_db: the same with both.
        clipping_fraction: fraction of the error energy in its activations that comes from clipping; the rest is
            rounding. None without an error or without activations.
        metrics: the user's metrics with only this layer in INT8.
    """

    node: str
    op_type: str
    alone: float
    all_but: float | None = None
    weights_db: float | None = None
    activations_db: float | None = None
    both_db: float | None = None
    clipping_fraction: float | None = None
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Layers by their sensitivity.

    Attributes:
        energies: the error of the model outputs with only that layer in INT8, batch by batch.
    """

    energies: Mapping[str, Sequence[ErrorEnergy]]

    @property
    def errors(self) -> dict[str, float]:
        """`LayerSensitivity.alone` by layer, the largest first."""
        return self._ranked(slice(None))

    @property
    def agreement(self) -> float:
        """The fraction of the most sensitive quarter on the even batches that is also in that of the odd ones.

        NaN for a single batch, which there is nothing to compare with.
        """
        if any(len(of_batches) < 2 for of_batches in self.energies.values()):
            return math.nan
        quarter = math.ceil(len(self.energies) / 4)
        even, odd = (set(list(self._ranked(slice(start, None, 2)))[:quarter]) for start in (0, 1))
        return len(even & odd) / max(quarter, 1)

    def with_more(self, other: Ranking) -> Ranking:
        """The ranking on the batches of both; `other` may lack layers."""
        return Ranking({node: [*own, *other.energies.get(node, ())] for node, own in self.energies.items()})

    def _ranked(self, batches: slice) -> dict[str, float]:
        errors = {node: sort_key(total(of_batches[batches]).worst()) for node, of_batches in self.energies.items()}
        return dict(sorted(errors.items(), key=lambda item: item[1], reverse=True))


def measure_sensitivity(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    *,
    attention: bool = False,
    nodes_to_exclude: tuple[str, ...] = (),
    all_but_one: bool = True,
    metric: UserMetric | None = None,
    progress: ProgressCallback = no_progress,
) -> tuple[LayerSensitivity, ...]:
    """Measure what quantizing each layer costs, on ONNX Runtime's CPU with Q/DQ computed in floating point.

    Args:
        model: the float model.
        table: its activation ranges.
        source: the batches to measure on; all are used, but of a language model only the start of two texts.
        attention: also quantize the MatMuls of attention.
        nodes_to_exclude: nodes that are not quantized, by the name of their first output.
        all_but_one: also measure all layers in INT8 but one.
        metric: the user's metrics, computed for the whole model once per layer, on the split "select".
        progress: shows progress over batches and layers.

    Returns:
        The weighted layers, embeddings and residual Adds that run in INT8, in graph order.

    Raises:
        TableError, ModelError, UsageError: see `insert_qdq`; or outputs that cannot be compared.
        DataError: there are no batches, the model fails on one, or see `UserMetric.evaluate`.
        OutputError: there is no room for activations in the temporary folder.
    """
    copy = model.to_ir()

    def plan_without(excluded: tuple[str, ...]) -> QuantizationPlan:
        return plan_qdq(model, copy.graph, table, (*nodes_to_exclude, *excluded), attention)

    plan = plan_without(())
    layers = int8_layers(plan)
    inputs = LayerInputReader(copy.graph, model.opset, plan, table)
    outputs = JudgedOutputs.of(model)
    source = outputs.batches(source)
    with _recorded(model, outputs, layers, inputs, source, progress) as recorder:
        energies = _measure_alone(recorder, outputs, layers, inputs, progress, "One layer in INT8")
        alone = {node: total(per_batch).worst() for node, per_batch in energies.items()}
        local = {
            layer.node: measure_local(recorder, layer, inputs)
            for layer in progress(layers, "Layers by themselves", len(layers))
        }
        all_but: Mapping[str, float] = {}
        if all_but_one:
            all_but = _measure_all_but(model, outputs, plan_without, layers, inputs, recorder, source, progress)
    metrics = {}
    if metric is not None:
        for layer in progress(layers, "Evaluating", len(layers)):
            metrics[layer.node] = _metrics(model, plan, table, layer, metric)
    return tuple(
        LayerSensitivity(
            layer.node,
            layer.op_type,
            alone[layer.node],
            all_but.get(layer.node),
            metrics=metrics.get(layer.node, {}),
            **asdict(local[layer.node]),
        )
        for layer in layers
    )


def rank_layers(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    attention: bool = False,
    nodes_to_exclude: tuple[str, ...] = (),
    progress: ProgressCallback = no_progress,
    weight_only: tuple[str, ...] = (),
    only: Collection[str] | None = None,
    stored_weights: StoredWeights | None = None,
) -> Ranking:
    """Rank the weighted layers, or those of them in `only`, by `LayerSensitivity.alone`; see `measure_sensitivity`.

    Weights in INT8 are those of `stored_weights`, if any; others are rounded to the nearest integer.
    """
    copy = model.to_ir()
    plan = plan_qdq(model, copy.graph, table, nodes_to_exclude, attention, weight_only)
    layers = [layer for layer in int8_layers(plan) if layer.op_type != "Add" and (only is None or layer.node in only)]
    inputs = LayerInputReader(copy.graph, model.opset, plan, table, stored_weights)
    outputs = JudgedOutputs.of(model)
    with _recorded(model, outputs, layers, inputs, outputs.batches(source), progress) as recorder:
        return Ranking(_measure_alone(recorder, outputs, layers, inputs, progress, "Ranking layers"))


@contextmanager
def _recorded(
    model: Model,
    outputs: JudgedOutputs,
    layers: list[Layer],
    inputs: LayerInputReader,
    source: BatchSource,
    progress: ProgressCallback,
) -> Iterator[ActivationRecorder]:
    """Record all tensors of the float model that its layers, and the nodes behind them, read."""
    with recording(outputs.keep(model.to_ir()), str(model.path)) as recorder:
        tensors = {name for layer in layers for name in layer.activations.values()}
        for layer in layers:
            tensors.update(recorder.network.layer(layer.rewiring, layer.node).live_inputs)
        for group in group_layers(layers, inputs):
            tensors.update(recorder.network.suffix(group.rewiring).live_inputs)
        recorder.record(tensors, source, progress)
        yield recorder


def _measure_alone(
    recorder: ActivationRecorder,
    outputs: JudgedOutputs,
    layers: list[Layer],
    inputs: LayerInputReader,
    progress: ProgressCallback,
    description: str,
) -> dict[str, list[ErrorEnergy]]:
    """The error of the model outputs in each batch, with only one layer in INT8, by layer."""
    groups = iter(group_layers(layers, inputs))
    waiting: list[Layer] = []
    suffix: SubgraphRunner | None = None
    exact: dict[str, Array] = {}
    energies = {layer.node: [ErrorEnergy() for _ in range(recorder.batches)] for layer in layers}
    for layer in progress(layers, description, len(layers)):
        if not waiting:
            group, suffix, exact = next(groups), None, {}  # frees the last session before the next one is loaded
            suffix = recorder.open(recorder.network.suffix(group.rewiring))
            exact, waiting = group.exact(inputs), [*group.layers]
        waiting.remove(layer)
        assert suffix is not None
        for number, energy in enumerate(energies[layer.node]):
            changed = exact | group.with_int8(layer, inputs.read(layer, recorder, number))
            for name, array in suffix.run(number, changed).items():
                outputs.add(energy, name, recorder.value(name, number), array)
    return energies


def _measure_all_but(
    model: Model,
    judged: JudgedOutputs,
    plan_without: Callable[[tuple[str, ...]], QuantizationPlan],
    layers: list[Layer],
    inputs: LayerInputReader,
    reference: ActivationRecorder,
    source: BatchSource,
    progress: ProgressCallback,
) -> Mapping[str, float]:
    """Error ratios of the Q/DQ model without the Q/DQ that is not planned when a layer is excluded, by layer."""
    whole, plan = model.to_ir(), plan_without(())
    insert_pairs(whole.graph, model.opset, plan, inputs.table, plan.inputs)
    rewirings = {
        layer.node: layer.without_qdq(set(plan.inputs) - set(plan_without((layer.node,)).inputs)) for layer in layers
    }
    errors = {}
    with recording(judged.keep(whole), str(model.path)) as recorder:
        del whole
        tensors = {name for rewiring in rewirings.values() for name in recorder.network.suffix(rewiring).live_inputs}
        recorder.record(tensors, source, progress)
        for layer in progress(layers, "All layers but one", len(layers)):
            suffix = recorder.open(recorder.network.suffix(rewirings[layer.node]))
            energy = ErrorEnergy()
            for number in range(recorder.batches):
                outputs = suffix.run(number, inputs.exact_weights(layer))
                for name in reference.outputs:
                    actual = outputs[name] if name in outputs else recorder.value(name, number)
                    judged.add(energy, name, reference.value(name, number), actual)
            errors[layer.node] = energy.worst()
    return errors


def _metrics(
    model: Model, plan: QuantizationPlan, table: CalibrationTable, layer: Layer, metric: UserMetric
) -> Metrics:
    candidate: ir.Model = model.to_ir()
    insert_pairs(candidate.graph, model.opset, plan, table, layer.inputs)
    with temporary_model_file(candidate, _MODEL_NAME) as path:
        return metric.evaluate(path, "select")
