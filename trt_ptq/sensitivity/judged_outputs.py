"""The outputs that the error of a layer is measured at, and how it is measured.

Where a model has a cache of keys and values among its outputs, nobody asks for them but the model itself: a decoder is
judged by its next-token distributions, as their KL divergence to the float model.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from trt_ptq.evaluation.error_energy import ErrorEnergy
from trt_ptq.language_models.decoder import LOGITS, is_decoder
from trt_ptq.language_models.judging.next_token import kl_divergence, short_texts
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Array, BatchSource

_TEXTS = 2


@dataclass(frozen=True)
class JudgedOutputs:
    """The outputs of a model that errors are measured at: the logits of a decoder, else all.

    Attributes:
        is_decoder: Whether the model is a causal language model.
    """

    is_decoder: bool

    @classmethod
    def of(cls, model: Model) -> JudgedOutputs:
        """Those of `model`."""
        return cls(is_decoder(model))

    def batches(self, source: BatchSource) -> BatchSource:
        """What to measure on: of a decoder the start of two texts, as each layer takes a run of all nodes behind it."""
        return short_texts(source, _TEXTS) if self.is_decoder else source

    def keep(self, model: ir.Model) -> ir.Model:
        """Remove the other outputs of `model`, in place."""
        if self.is_decoder:
            model.graph.outputs[:] = [value for value in model.graph.outputs if value.name == LOGITS]
        return model

    def add(self, energy: ErrorEnergy, name: str, reference: Array, candidate: Array) -> None:
        """Add the error of one batch of output `name` to `energy`."""
        if self.is_decoder:
            energy.add_divergence(name, kl_divergence(reference, candidate))
        else:
            energy.add(name, reference, candidate)
