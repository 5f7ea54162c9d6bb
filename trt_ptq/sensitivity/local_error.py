"""What INT8 costs at a layer's own output: by its weights, by its activations, and by what it does to those."""

from __future__ import annotations

from dataclasses import dataclass

from trt_ptq.evaluation.error_energy import ErrorEnergy, ErrorSplit, decibels
from trt_ptq.sensitivity.layers import Layer, LayerInputReader
from trt_ptq.sensitivity.recorder import ActivationRecorder


@dataclass(frozen=True)
class LocalError:
    """SQNR of a layer's own output, and the share of clipping in its activations' error; as in `LayerSensitivity`."""

    weights_db: float | None
    activations_db: float | None
    both_db: float
    clipping_share: float | None


def measure_local(recorder: ActivationRecorder, layer: Layer, inputs: LayerInputReader) -> LocalError:
    """Run `layer` alone on what it reads in the float model, with each kind of its inputs in INT8."""
    itself = recorder.open(recorder.network.layer(layer.rewiring, layer.node))
    weights, activations, both, split = ErrorEnergy(), ErrorEnergy(), ErrorEnergy(), ErrorSplit()
    for batch in range(recorder.batches):
        read = inputs.of(layer, recorder, batch)
        wanted = itself.run(batch, read.exact)[layer.node]
        both.add(layer.node, wanted, itself.run(batch, read.int8)[layer.node])
        if layer.weights and layer.activations:
            weights.add(layer.node, wanted, itself.run(batch, read.with_int8(layer.weights))[layer.node])
            activations.add(layer.node, wanted, itself.run(batch, read.with_int8(layer.activations))[layer.node])
        for name, tensor in layer.activations.items():
            split.add(read.exact[name], inputs.scale(tensor))
    both_db = decibels(both.worst())
    if not layer.activations:
        return LocalError(both_db, None, both_db, None)
    if not layer.weights:
        return LocalError(None, both_db, both_db, split.clipping_share)
    return LocalError(decibels(weights.worst()), decibels(activations.worst()), both_db, split.clipping_share)
