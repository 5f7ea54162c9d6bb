"""Comparing models with their reference on the same batches, through Polygraphy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from polygraphy.backend.onnxrt import OnnxrtRunner

from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.fidelity import COMPARABLE, FidelityMeter, OutputFidelity
from trt_ptq.evaluation.onnx_runner import infer, onnx_runner
from trt_ptq.onnx_io.load import model_size_bytes
from trt_ptq.types import BatchSource, ProgressCallback, no_progress, sample_count

_MOST_TOGETHER_BYTES = 2**30


@dataclass(frozen=True)
class Comparison:
    """Fidelity of one candidate to the reference, by output name."""

    candidate: str
    samples: int
    outputs: dict[str, OutputFidelity]


def compare_models(
    reference: Path, candidates: Sequence[Path], source: BatchSource, progress: ProgressCallback = no_progress
) -> list[Comparison]:
    """Run `reference` and all `candidates` (ONNX files) over `source`, a batch at a time, on ONNX Runtime's CPU.

    Large models are compared two at a time, so that no third one is in memory; the reference then runs more than once.

    Raises:
        ModelError: a model cannot be loaded, or its outputs are not those of the reference.
        DataError: no batches, or a model fails on one.
    """
    if len(candidates) > 1 and sum(map(model_size_bytes, (reference, *candidates))) > _MOST_TOGETHER_BYTES:
        return [compare_models(reference, [one], source, progress)[0] for one in candidates]
    meters: list[dict[str, FidelityMeter]] = [{} for _ in candidates]
    samples = 0
    with ExitStack() as stack:
        baseline = stack.enter_context(onnx_runner(reference))
        runners = [stack.enter_context(onnx_runner(path)) for path in candidates]
        for batch in progress(source, "Comparing", source.total):
            samples += sample_count(batch.feeds)
            wanted = infer(baseline, batch.feeds, batch.origin)
            for runner, metered in zip(runners, meters, strict=True):
                got = infer(runner, batch.feeds, batch.origin)
                _same_outputs(runner, wanted.keys() ^ got.keys(), reference)
                for name, array in wanted.items():
                    if got[name].shape != array.shape:
                        raise ModelError(
                            f"{runner.name}: output {name!r} has shape {list(got[name].shape)}, that of {reference} "
                            f"{list(array.shape)}: an output whose size depends on the data, as after a non-maximum "
                            "suppression, cannot be compared; end the model before it"
                        )
                    if array.dtype.kind not in COMPARABLE:
                        raise ModelError(f"{reference}: output {name!r} holds no numbers, so it cannot be compared")
                    metered.setdefault(name, FidelityMeter()).update(array, got[name])
    if not samples:
        raise DataError("there are no batches to compare on")
    return [
        Comparison(path.name, samples, {name: meter.result() for name, meter in metered.items()})
        for path, metered in zip(candidates, meters, strict=True)
    ]


def _same_outputs(runner: OnnxrtRunner, differing: set[str], reference: Path) -> None:
    if differing:
        raise ModelError(
            f"{runner.name} and {reference} differ in their outputs ({', '.join(sorted(differing))}): "
            "compare a model with the one it was made from"
        )


def fidelity_losses(comparison: Comparison) -> dict[str, float]:
    """Loss by output where there is no task metric, see `OutputFidelity.loss`. Outputs without a value are none.

    Raises:
        DataError: there is no value to compare in any output.
    """
    losses = {f"fidelity of {name}": one.loss for name, one in comparison.outputs.items() if one.compared}
    if not losses:
        raise DataError(
            f"no output of the reference has a finite value to compare {comparison.candidate} with "
            f"({', '.join(map(repr, comparison.outputs))}): all are empty, NaN or infinite"
        )
    return losses


def fidelity_warnings(comparison: Comparison) -> list[str]:
    """What the figures of a comparison do not cover, a sentence each."""
    warnings = []
    for name, one in comparison.outputs.items():
        if one.left_out:
            warnings.append(
                f"output {name!r}: {one.left_out} values are NaN or infinite in the reference, "
                f"so {comparison.candidate} was compared on the other {one.compared}"
            )
        elif not one.compared:
            warnings.append(f"output {name!r} was empty on every batch: it was not compared")
        if one.compared and math.isnan(one.cosine):
            warnings.append(f"output {name!r} of {comparison.candidate} is NaN or infinite where the reference is not")
    return warnings
