"""How far the outputs of a candidate are from those of the float model, on a few calibration samples.

This tells candidates apart that differ in only a few samples of a user's metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir
from onnx import TensorProto

from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.error_energy import COMPARABLE
from trt_ptq.evaluation.fidelity import FidelityMeter
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.onnx_runner import CANDIDATE, onnx_runner, temporary_model_file
from trt_ptq.language_models.decoder import is_decoder
from trt_ptq.language_models.judging.next_token import NextTokenDivergence
from trt_ptq.onnx_io.load import Model
from trt_ptq.tuning.estimating.few_samples import FewSamples
from trt_ptq.tuning.objective import largest_loss
from trt_ptq.types import Array, BatchSource

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


@dataclass
class DeviationSums:
    """What was measured of a candidate so far.

    Attributes:
        parts: number of parts of the samples that it ran on: 1 after the first look, 2 in all.
        meters: by output.
        varying: outputs whose shape is another than that of the float model.
    """

    parts: int = 0
    meters: dict[str, FidelityMeter] = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)

    def add(self, expected: dict[str, Array], actual: dict[str, Array]) -> None:
        """Add the outputs for a batch."""
        for name, array in expected.items():
            if array.dtype.kind not in COMPARABLE:
                raise ModelError(f"output {name!r} holds no numbers, so it cannot be compared")
            if array.shape != actual[name].shape:
                self.varying.add(name)
            elif name not in self.varying:
                self.meters.setdefault(name, FidelityMeter()).update(array, actual[name])

    @property
    def is_comparable(self) -> bool:
        """Whether an output had a finite value to compare, or the shapes of all of them vary."""
        outputs = self.meters.keys() - self.varying
        return any(self.meters[name].result().compared for name in outputs) or (bool(self.varying) and not outputs)

    def error(self, floats: set[str]) -> float:
        """The largest error of the outputs; of those in `floats`, if any of these can be compared."""
        outputs = {name: self.meters[name].result() for name in self.meters.keys() - self.varying}
        if self.varying and not outputs:
            return math.inf
        errors = {name: output.cosine_error for name, output in outputs.items() if output.compared}
        if not errors:
            raise DataError("no output has a finite value to compare: all are empty, NaN or infinite")
        return largest_loss({name: error for name, error in errors.items() if name in floats} or errors)


@dataclass(frozen=True)
class OutputDeviation:
    """Measures the output error of candidates: of a decoder by its next-token distributions, not by its cache.

    Attributes:
        model: the float model.
        reference: the same, with the outputs that are known.
        samples: what to measure on.
        calibration: the calibration data; of a decoder, short texts of it are measured on.
        texts: number of these texts.
    """

    model: Model
    reference: Reference
    samples: FewSamples
    calibration: BatchSource
    texts: int

    @cached_property
    def _next_token(self) -> NextTokenDivergence | None:
        return NextTokenDivergence(self.model, self.calibration, self.texts) if is_decoder(self.model) else None

    @cached_property
    def _floats(self) -> set[str]:
        declared = self.model.proto.graph.output
        return {output.name for output in declared if output.type.tensor_type.elem_type in _FLOATS}

    def measure(self, candidate: ir.Model, sums: DeviationSums, parts: int = 2) -> list[float]:
        """Measure the largest `OutputFidelity.cosine_error` of the outputs; infinite if one is NaN.

        Only floating-point outputs count, where there are any: classes and indices have no direction. Infinite too if
        the shapes of all outputs vary. Of a decoder, measure `NextTokenDivergence` instead, at once on all texts.

        Args:
            candidate: the model.
            sums: what was measured of it before; it is not run on these samples again.
            parts: 1 for a first look at the first of `samples`, 2 for all. Also all where the first have nothing to
                compare, as images without detections.

        Returns:
            The error after each part that it ran on.

        Raises:
            DataError, ModelError: the model cannot be run or compared.
        """
        if self._next_token is not None:
            sums.parts = 2
            return [self._next_token.measure(candidate)] * 2
        errors: list[float] = []
        before = sums.parts
        with (
            temporary_model_file(candidate, CANDIDATE) as path,
            self.reference.outputs() as reference,
            onnx_runner(path) as runner,
        ):
            for part in (self.samples.first, self.samples.rest)[sums.parts :]:
                for batch in part or ():
                    sums.add(reference(batch), runner.infer(batch.feeds, batch.origin))
                sums.parts += 1
                if sums.parts == 2 or sums.is_comparable:
                    errors += [sums.error(self._floats)] * (sums.parts - before - len(errors))
                    if sums.parts >= parts:
                        break
        return errors
