"""Fidelity of ONNX models to a reference, on the same batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.fidelity import COMPARABLE, FidelityMeter, OutputFidelity, fidelity_of
from trt_ptq.evaluation.joined import Joint, joined_outputs
from trt_ptq.evaluation.onnx_runner import onnx_runner
from trt_ptq.evaluation.scores import score_outputs
from trt_ptq.onnx_io.load import model_size_bytes
from trt_ptq.types import BatchSource, ProgressCallback, no_progress, sample_count

_MAX_BYTES_TOGETHER = 2**30
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
    reference: Path, candidates: Sequence[Path], source: BatchSource, progress: ProgressCallback = no_progress
) -> list[ModelFidelity]:
    """Run ONNX models and a reference on the same batches, on ONNX Runtime's CPU.

    Large models are compared two at a time to save memory; the reference then runs more than once.

    Args:
        reference: the ONNX file to compare with.
        candidates: ONNX files, quantized by any tool or not, with the inputs and outputs of the reference.
        source: the batches.
        progress: shows progress over the batches.

    Returns:
        The fidelity of each candidate.

    Raises:
        ModelError: a model cannot be loaded, or its outputs are not those of the reference.
        DataError: there are no batches, or a model fails on one.
    """
    if len(candidates) > 1 and sum(map(model_size_bytes, (reference, *candidates))) > _MAX_BYTES_TOGETHER:
        return [compare_models(reference, [candidate], source, progress)[0] for candidate in candidates]
    scores, joints = _output_kinds(reference)
    meters: list[dict[str, FidelityMeter]] = [{} for _ in candidates]
    varying: list[dict[str, str]] = [{} for _ in candidates]
    samples = 0
    with ExitStack() as stack:
        baseline = stack.enter_context(onnx_runner(reference))
        runners = [stack.enter_context(onnx_runner(path)) for path in candidates]
        for batch in progress(source, "Comparing", source.total):
            samples += sample_count(batch.feeds)
            expected = baseline.infer(batch.feeds, batch.origin)
            for runner, output_meters, runner_varying in zip(runners, meters, varying, strict=True):
                actual = runner.infer(batch.feeds, batch.origin)
                _check_same_outputs(runner.name, expected.keys() ^ actual.keys(), reference)
                for name, array in expected.items():
                    if actual[name].shape != array.shape:
                        output_meters.pop(name, None)
                        runner_varying.setdefault(
                            name,
                            f"output {name!r} has shape {list(actual[name].shape)} in {runner.name}, and "
                            f"{list(array.shape)} in {reference.name}: an output whose size depends on the data, as "
                            "after a non-maximum suppression, cannot be compared",
                        )
                    if name in runner_varying:
                        continue
                    if array.dtype.kind not in COMPARABLE:
                        raise ModelError(f"{reference}: output {name!r} holds no numbers, so it cannot be compared")
                    output_meters.setdefault(name, FidelityMeter(name in scores, joints.get(name)))
                    output_meters[name].update(array, actual[name])
    if not samples:
        raise DataError("there are no batches to compare on")
    return [
        ModelFidelity(
            path.name, samples, {name: meter.result() for name, meter in output_meters.items()}, runner_varying
        )
        for path, output_meters, runner_varying in zip(candidates, meters, varying, strict=True)
    ]


def _output_kinds(reference: Path) -> tuple[frozenset[str], dict[str, Joint]]:
    """The outputs of an ONNX file that hold scores, and those that join several quantities; reads the file once."""
    try:
        model = onnx.load(reference, load_external_data=False)
    except Exception as error:  # onnx and protobuf have no common base for their errors
        raise ModelError(f"{reference}: cannot be read: {error}") from error
    return score_outputs(model), joined_outputs(model)


def _check_same_outputs(candidate: str, differing: set[str], reference: Path) -> None:
    if differing:
        raise ModelError(
            f"{candidate} and {reference} differ in their outputs ({', '.join(sorted(differing))}): "
            "compare a model with the one that it was made from"
        )
