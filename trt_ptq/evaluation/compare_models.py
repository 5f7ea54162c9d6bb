"""Fidelity of an ONNX model or engine to a reference, on the same batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.error_energy import COMPARABLE
from trt_ptq.evaluation.fidelity import FidelityMeter, OutputFidelity, fidelity_of
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.runner import Runner, is_engine, open_runner
from trt_ptq.types import BatchSource, ProgressCallback, no_progress, sample_count

_MUCH_WORSE_DB = 10.0


@dataclass(frozen=True)
class ModelFidelity:
    """How close the outputs of one model are to those of the reference.

    Attributes:
        candidate: file name of the model.
        samples: number of samples that both ran on.
        outputs: fidelity by output name.
        varying: outputs that cannot be compared, since their shape differs from that of the reference, and the reason.
    """

    candidate: str
    samples: int
    outputs: dict[str, OutputFidelity]
    varying: dict[str, str] = field(default_factory=dict)

    def compared(self) -> dict[str, OutputFidelity]:
        """The outputs that have values to compare.

        Raises:
            ModelError: the shape of an output varies, so only a user's metric can evaluate it.
            DataError: there is none.
        """
        if self.varying:
            reason = next(iter(self.varying.values()))
            raise ModelError(f"{reason}; end the model before it, or pass `evaluate`")
        compared = {name: output for name, output in self.outputs.items() if output.compared}
        if not compared:
            raise DataError(
                f"no output of the reference has a finite value to compare {self.candidate} with "
                f"({', '.join(map(repr, self.outputs))}): all are empty, NaN or infinite"
            )
        return compared

    def errors(self) -> dict[str, float]:
        """The error by output, for a verdict without a user's metric; see `OutputFidelity.error`.

        Raises:
            DataError: see `compared`.
        """
        return {fidelity_of(name): output.error for name, output in self.compared().items()}

    def warnings(self) -> list[str]:
        """Warn of values that the figures do not cover."""
        warnings = list(self.varying.values())
        for name, output in self.outputs.items():
            if (part := output.worst_part) is not None and part.sqnr_db < output.sqnr_db - _MUCH_WORSE_DB:
                warnings.append(
                    f"output {name!r} joins several quantities: entries {part.start} to {part.stop - 1} of axis "
                    f"{part.axis} have {part.sqnr_db:.1f} dB SQNR in {self.candidate}, the whole has "
                    f"{output.sqnr_db:.1f} dB"
                )
            if output.left_out:
                warnings.append(
                    f"output {name!r}: {output.left_out} values are NaN or infinite in the reference, "
                    f"so {self.candidate} was compared on the other {output.compared}"
                )
            elif not output.compared:
                warnings.append(f"output {name!r} was empty on every batch, so it was not compared")
            if output.compared and math.isnan(output.cosine):
                warnings.append(f"output {name!r} of {self.candidate} is NaN or infinite where the reference is not")
        return warnings


def compare_models(
    reference: Path | Reference, candidate: Path, source: BatchSource, progress: ProgressCallback = no_progress
) -> ModelFidelity:
    """Run a model and its reference on the same batches: ONNX models on ONNX Runtime's CPU, engines on the GPU.

    Args:
        reference: the model to compare with, or its ONNX file or engine.
        candidate: an ONNX file, quantized by any tool or not, with the inputs and outputs of the reference; or an
            engine.
        source: the batches.
        progress: shows progress over the batches.

    Returns:
        The fidelity of the candidate.

    Raises:
        ModelError: a model cannot be loaded, or its outputs are not those of the reference.
        EngineError, MissingPackageError: an engine cannot be loaded or run here.
        DataError: there are no batches, or a model fails on one.
    """
    with open_runner(candidate) as runner:
        return compare_runner(reference, runner, candidate, source, progress)


def compare_runner(
    reference: Path | Reference,
    runner: Runner,
    candidate: Path,
    source: BatchSource,
    progress: ProgressCallback = no_progress,
) -> ModelFidelity:
    """Compare a candidate that is loaded already; see `compare_models`.

    Args:
        reference: the model to compare with, or its ONNX file or engine.
        runner: the candidate.
        candidate: its file.
        source: the batches.
        progress: shows progress over the batches.
    """
    if isinstance(reference, Path):
        reference = Reference(reference)
    kinds = (Reference(candidate) if is_engine(reference.path) else reference).output_kinds
    meters: dict[str, FidelityMeter] = {}
    varying: dict[str, str] = {}
    samples = 0
    with reference.outputs() as outputs_of_reference:
        for batch in progress(source, "Comparing", source.total):
            samples += sample_count(batch.feeds)
            expected = outputs_of_reference(batch)
            actual = runner.infer(batch.feeds, batch.origin)
            _check_same_outputs(runner.name, expected.keys() ^ actual.keys(), reference.path)
            for name, array in expected.items():
                if actual[name].shape != array.shape:
                    meters.pop(name, None)
                    varying.setdefault(
                        name,
                        f"output {name!r} has shape {list(actual[name].shape)} in {runner.name}, and "
                        f"{list(array.shape)} in {reference.name}: an output whose size depends on the data, as "
                        "after a non-maximum suppression, cannot be compared",
                    )
                if name in varying:
                    continue
                if array.dtype.kind not in COMPARABLE:
                    raise ModelError(f"{reference.path}: output {name!r} holds no numbers, so it cannot be compared")
                meters.setdefault(name, FidelityMeter(name in kinds.scores, kinds.joints.get(name)))
                meters[name].update(array, actual[name])
    if not samples:
        raise DataError("there are no batches to compare on")
    return ModelFidelity(candidate.name, samples, {name: meter.result() for name, meter in meters.items()}, varying)


def _check_same_outputs(candidate: str, differing: set[str], reference: Path) -> None:
    if differing:
        raise ModelError(
            f"{candidate} and {reference} differ in their outputs ({', '.join(sorted(differing))}): "
            "compare a model with the one that it was made from"
        )
