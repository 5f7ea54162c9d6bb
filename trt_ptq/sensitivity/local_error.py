"""The INT8 error at a layer's own output: from its weights, from its activations, and from both."""

from __future__ import annotations

from dataclasses import dataclass

from trt_ptq.evaluation.error_energy import ErrorEnergy, ErrorSplit, decibels
from trt_ptq.sensitivity.layers import Layer, LayerInputReader
from trt_ptq.sensitivity.recorder import ActivationRecorder


@dataclass(frozen=True)
class LocalError:
    """SQNR at a layer's own output, and how much of the error in its activations is clipping.

    See `LayerSensitivity` for the fields.
    """

    weights_db: float | None
    activations_db: float | None
    both_db: float
    clipping_fraction: float | None


def measure_local(recorder: ActivationRecorder, layer: Layer, inputs: LayerInputReader) -> LocalError:
    """Run `layer` by itself on its recorded FP32 inputs, with its weights, its activations or both in INT8."""
    runner = recorder.open(recorder.network.layer(layer.rewiring, layer.node))
    weights, activations, both, split = ErrorEnergy(), ErrorEnergy(), ErrorEnergy(), ErrorSplit()
    for number in range(recorder.batches):
        batch = inputs.read(layer, recorder, number)
        expected = runner.run(number, batch.exact)[layer.node]
        both.add(layer.node, expected, runner.run(number, batch.int8)[layer.node])
        if layer.weights and layer.activations:
            weights.add(layer.node, expected, runner.run(number, batch.with_int8(layer.weights))[layer.node])
            activations.add(layer.node, expected, runner.run(number, batch.with_int8(layer.activations))[layer.node])
        for name, tensor in layer.activations.items():
            split.add(batch.exact[name], inputs.scale(tensor))
    both_db = decibels(both.worst())
    if not layer.activations:
        return LocalError(both_db, None, both_db, None)
    if not layer.weights:
        return LocalError(None, both_db, both_db, split.clipping_fraction)
    return LocalError(decibels(weights.worst()), decibels(activations.worst()), both_db, split.clipping_fraction)
