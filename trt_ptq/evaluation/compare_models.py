"""Fidelity of ONNX models and engines to a reference, on the same batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.error_energy import COMPARABLE
from trt_ptq.evaluation.fidelity import FidelityMeter, OutputFidelity, fidelity_of
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.runner import is_engine, open_runner
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
    reference: Path | Reference,
    candidates: Sequence[Path],
    source: BatchSource,
    progress: ProgressCallback = no_progress,
) -> list[ModelFidelity]:
    """Run models and a reference on the same batches: ONNX models on ONNX Runtime's CPU, engines on the GPU.

    Large models are compared two at a time to save memory; a reference that does not keep its outputs then runs more
    than once.

    Args:
        reference: the model to compare with, or its ONNX file or engine.
        candidates: ONNX files, quantized by any tool or not, and engines, with the inputs and outputs of the reference.
        source: the batches.
        progress: shows progress over the batches.

    Returns:
        The fidelity of each candidate.

    Raises:
        ModelError: a model cannot be loaded, or its outputs are not those of the reference.
        EngineError, MissingPackageError: an engine cannot be loaded or run here.
        DataError: there are no batches, or a model fails on one.
    """
    if isinstance(reference, Path):
        reference = Reference(reference)
    if len(candidates) > 1 and sum(map(_size_bytes, (reference.path, *candidates))) > _MAX_BYTES_TOGETHER:
        return [compare_models(reference, [candidate], source, progress)[0] for candidate in candidates]
    models = [reference, *map(Reference, candidates)]
    kinds = next((model for model in models if not is_engine(model.path)), reference).output_kinds
    meters: list[dict[str, FidelityMeter]] = [{} for _ in candidates]
    varying: list[dict[str, str]] = [{} for _ in candidates]
    samples = 0
    with ExitStack() as stack:
        outputs_of_reference = stack.enter_context(reference.outputs())
        runners = [stack.enter_context(open_runner(path)) for path in candidates]
        for batch in progress(source, "Comparing", source.total):
            samples += sample_count(batch.feeds)
            expected = outputs_of_reference(batch)
            for runner, output_meters, runner_varying in zip(runners, meters, varying, strict=True):
                actual = runner.infer(batch.feeds, batch.origin)
                _check_same_outputs(runner.name, expected.keys() ^ actual.keys(), reference.path)
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
                        raise ModelError(
                            f"{reference.path}: output {name!r} holds no numbers, so it cannot be compared"
                        )
                    output_meters.setdefault(name, FidelityMeter(name in kinds.scores, kinds.joints.get(name)))
                    output_meters[name].update(array, actual[name])
    if not samples:
        raise DataError("there are no batches to compare on")
    return [
        ModelFidelity(
            path.name, samples, {name: meter.result() for name, meter in output_meters.items()}, runner_varying
        )
        for path, output_meters, runner_varying in zip(candidates, meters, varying, strict=True)
    ]


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if is_engine(path) else model_size_bytes(path)


def _check_same_outputs(candidate: str, differing: set[str], reference: Path) -> None:
    if differing:
        raise ModelError(
            f"{candidate} and {reference} differ in their outputs ({', '.join(sorted(differing))}): "
            "compare a model with the one that it was made from"
        )
