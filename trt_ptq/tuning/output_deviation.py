"""How far the outputs of a candidate are from those of the float model, on a little of the calibration data.

It tells candidates apart where a metric tells luck: where they differ by a few samples of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir
from onnx import TensorProto

from trt_ptq.data.adapters import in_memory
from trt_ptq.data.subset import evenly_spaced
from trt_ptq.evaluation.compare_models import compare_models, fidelity_losses
from trt_ptq.evaluation.onnx_runner import temporary_model_file
from trt_ptq.onnx_io.load import Model
from trt_ptq.tuning.objective import CANDIDATE, largest_loss
from trt_ptq.types import BatchSource

BATCHES = 8  # on five real models, range methods came in the order of all held-out data
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True)
class OutputDeviation:
    """The loss of fidelity to `reference` on `BATCHES` batches of `calibration`."""

    reference: Model
    calibration: BatchSource

    @cached_property
    def _source(self) -> BatchSource:
        return in_memory(evenly_spaced(self.calibration, BATCHES))

    def of(self, candidate: ir.Model) -> float:
        """`OutputFidelity.loss` of the worst output: of floats, where there are any, as classes and indices have no
        direction. Infinite if one is NaN.

        Raises:
            DataError, ModelError: see `compare_models`.
        """
        with temporary_model_file(candidate, CANDIDATE) as path:
            compared = compare_models(self.reference.path, [path], self._source)[0]
        named = self.reference.proto.graph.output
        floats = {one.name for one in named if one.type.tensor_type.elem_type in _FLOATS}
        telling = {name: one for name, one in compared.outputs.items() if one.compared and name in floats}
        return largest_loss(fidelity_losses(replace(compared, outputs=telling or compared.outputs)))
