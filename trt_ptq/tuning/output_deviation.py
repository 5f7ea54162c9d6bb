"""How far the outputs of a candidate are from those of the float model, on a few calibration batches.

This tells candidates apart that differ in only a few samples of a user's metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir
from onnx import TensorProto

from trt_ptq.data.subset import evenly_spaced
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.onnx_runner import CANDIDATE, temporary_model_file
from trt_ptq.language_models.decoder import is_decoder
from trt_ptq.language_models.judging.next_token import NextTokenDivergence
from trt_ptq.onnx_io.load import Model
from trt_ptq.tuning.objective import largest_loss
from trt_ptq.types import BatchSource

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True)
class OutputDeviation:
    """Measures the output error of candidates: of a decoder by its next-token distributions, not by its cache.

    Attributes:
        model: the float model.
        reference: the same, with the outputs that are known.
        calibration: the calibration data.
        batches: number of batches to measure on, spread over the data.
    """

    model: Model
    reference: Reference
    calibration: BatchSource
    batches: int

    @cached_property
    def _next_token(self) -> NextTokenDivergence | None:
        if not is_decoder(self.model):
            return None
        return NextTokenDivergence(self.model, self.calibration, self.batches)

    @cached_property
    def _source(self) -> BatchSource:
        return evenly_spaced(self.calibration, self.batches)

    def measure(self, candidate: ir.Model) -> float:
        """Measure the largest `OutputFidelity.cosine_error` of the outputs; infinite if one is NaN.

        Only floating-point outputs count, where there are any: classes and indices have no direction. Infinite too if
        the shapes of all outputs vary. Of a decoder, measure `NextTokenDivergence` instead.

        Raises:
            DataError, ModelError: see `compare_models`.
        """
        if self._next_token is not None:
            return self._next_token.measure(candidate)
        with temporary_model_file(candidate, CANDIDATE) as path:
            fidelity = compare_models(self.reference, [path], self._source)[0]
        declared = self.model.proto.graph.output
        floats = {output.name for output in declared if output.type.tensor_type.elem_type in _FLOATS}
        if fidelity.varying and not fidelity.outputs:
            return math.inf
        compared = replace(fidelity, varying={}).compared()
        errors = {name: output.cosine_error for name, output in compared.items()}
        return largest_loss({name: error for name, error in errors.items() if name in floats} or errors)
