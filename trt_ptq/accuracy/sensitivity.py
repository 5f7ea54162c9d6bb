"""What INT8 costs layer by layer: one layer in INT8 and the rest in float, and the other way round.

Both are measured on tensors that were recorded in one run of the whole model, so that only what a layer's change
reaches is computed again; see graph/suffix.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import onnx_ir as ir

from trt_ptq.accuracy.evaluate import Evaluate, Metrics, evaluate_model
from trt_ptq.accuracy.layers import Layer, LayerInputs, int8_layers
from trt_ptq.accuracy.local import measure_local
from trt_ptq.accuracy.noise import Noise, cost, total
from trt_ptq.accuracy.replay import Replay, replaying
from trt_ptq.accuracy.runner import on_disk
from trt_ptq.calibrators.batches import BatchSource, Track, untracked
from trt_ptq.calibrators.table.table import CalibrationTable
from trt_ptq.graph.model import Model
from trt_ptq.graph.placement import QuantizationPlan
from trt_ptq.graph.qdq import insert_pairs, plan_qdq


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
    keep_float: tuple[str, ...] = (),
    all_but_one: bool = True,
    evaluate: Evaluate | None = None,
    eval_name: str = "",
    track: Track = untracked,
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
        return plan_qdq(model, copy.graph, table, (*keep_float, *kept), attention)

    plan = plans(())
    layers = int8_layers(plan)
    inputs = LayerInputs(copy.graph, model.opset, plan, table)
    with _recorded(model, layers, source, track) as replay:
        alone = {
            one.node: total(_alone(replay, one, inputs)).worst()
            for one in track(layers, "One layer in INT8", len(layers))
        }
        local = {
            one.node: measure_local(replay, one, inputs) for one in track(layers, "Layers by themselves", len(layers))
        }
        all_but = _all_but(model, plans, layers, inputs, replay, source, track) if all_but_one else {}
    metrics = {}
    if evaluate is not None:
        for one in track(layers, "Evaluating", len(layers)):
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
    keep_float: tuple[str, ...] = (),
    track: Track = untracked,
) -> Ranking:
    """The weighted layers in INT8 by what they cost with only them in INT8; see `measure_sensitivity`."""
    copy = model.to_ir()
    plan = plan_qdq(model, copy.graph, table, keep_float, attention)
    layers = [one for one in int8_layers(plan) if one.op_type != "Add"]
    inputs = LayerInputs(copy.graph, model.opset, plan, table)
    with _recorded(model, layers, source, track) as replay:
        alone = {one.node: _alone(replay, one, inputs) for one in track(layers, "Ranking layers", len(layers))}

    def ranked(batches: slice) -> dict[str, float]:
        costs = {node: cost(total(noises[batches]).worst()) for node, noises in alone.items()}
        return dict(sorted(costs.items(), key=lambda one: one[1], reverse=True))

    worst = math.ceil(len(layers) / 4)
    even, odd = (set(list(ranked(slice(start, None, 2)))[:worst]) for start in (0, 1))
    return Ranking(ranked(slice(None)), len(even & odd) / max(worst, 1))


@contextmanager
def _recorded(model: Model, layers: list[Layer], source: BatchSource, track: Track) -> Iterator[Replay]:
    """The float model, with all that its layers and their suffixes read."""
    with replaying(model.to_ir(), str(model.path)) as replay:
        tensors = {name for one in layers for name in one.activations.values()}
        for one in layers:
            tensors.update(replay.network.suffix(one.change).live, replay.network.layer(one.change, one.node).live)
        replay.record(tensors, source, track)
        yield replay


def _alone(replay: Replay, layer: Layer, inputs: LayerInputs) -> list[Noise]:
    """Of the outputs, batch by batch, with only this layer in INT8."""
    suffix = replay.open(replay.network.suffix(layer.change))
    noises = [Noise() for _ in range(replay.batches)]
    for batch, noise in enumerate(noises):
        read = inputs.of(layer, replay, batch)
        for name, array in suffix.run(batch, read.int8).items():
            noise.add(name, replay.value(name, batch), array)
    return noises


def _all_but(
    model: Model,
    plans: Callable[[tuple[str, ...]], QuantizationPlan],
    layers: list[Layer],
    inputs: LayerInputs,
    reference: Replay,
    source: BatchSource,
    track: Track,
) -> Mapping[str, float]:
    """On the whole Q/DQ model, less the Q/DQ that the plan does not have when a layer stays in float."""
    whole, plan = model.to_ir(), plans(())
    insert_pairs(whole.graph, model.opset, plan, inputs.table, plan.inputs)
    changes = {one.node: one.in_float(set(plan.inputs) - set(plans((one.node,)).inputs)) for one in layers}
    found = {}
    with replaying(whole, str(model.path)) as replay:
        del whole
        live = {name for change in changes.values() for name in replay.network.suffix(change).live}
        replay.record(live, source, track)
        for layer in track(layers, "All layers but one", len(layers)):
            suffix = replay.open(replay.network.suffix(changes[layer.node]))
            noise = Noise()
            for batch in range(replay.batches):
                outputs = suffix.run(batch, inputs.exact_weights(layer))
                for name in reference.outputs:
                    got = outputs[name] if name in outputs else replay.value(name, batch)
                    noise.add(name, reference.value(name, batch), got)
            found[layer.node] = noise.worst()
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
    with on_disk(only, "one.onnx") as path:
        return evaluate_model(path, evaluate, eval_name)
