"""trt-ptq compare: a model against its reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq._internal.quantities import parse_max_drop
from trt_ptq.cli import console, options
from trt_ptq.data.open import open_data
from trt_ptq.data.user_function import load_function
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.evaluation.compare_engines import engine_inputs
from trt_ptq.evaluation.comparison import check_comparable, compare_with_reference, is_engine
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.onnx_io.load import read_inputs


def compare(
    reference: Annotated[
        Path, typer.Argument(help="The model to compare with: usually the float ONNX model.", show_default=False)
    ],
    candidate: Annotated[
        Path, typer.Argument(help="The model to grade, usually INT8, of any tool.", show_default=False)
    ],
    data: options.Data,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    evaluate: options.Evaluate = None,
    lower_is_better: options.LowerIsBetter = None,
    max_drop: options.MaxDrop = "1%",
    json: options.Json = False,
) -> None:
    """Compare the outputs of a model with those of its reference, or their metrics with --eval.

    Two ONNX models run on the CPU with ONNX Runtime, two engines (.engine, .plan) on the GPU. Exit status 3 if the loss
    exceeds --max-drop.

    Example: trt-ptq compare model.onnx int8/model.int8.onnx --data test/
    """
    metric = UserMetric(load_function(evaluate), evaluate, lower_is_better or ()) if evaluate else None
    threshold = parse_max_drop("max_drop", max_drop)
    check_comparable(reference, candidate, metric)
    inputs = engine_inputs(reference) if is_engine(reference) else read_inputs(reference)
    if not is_engine(candidate):
        read_inputs(candidate)
    source = ValidatedSource(open_data(data, inputs, batch_size=batch_size, preprocess=preprocess), inputs)
    comparison = compare_with_reference(reference, candidate, source, metric, threshold, console.progress)
    verdict = comparison.verdict
    for warning in comparison.warnings:
        console.warn(warning)
    if json:
        console.print_json(
            {
                "comparison": {
                    "candidate": comparison.candidate,
                    "samples": comparison.samples,
                    "outputs": {name: asdict(output) for name, output in comparison.outputs.items()},
                },
                "metrics": {"reference": comparison.reference_metrics, "candidate": comparison.candidate_metrics},
                "losses": comparison.losses,
                "verdict": {**asdict(verdict), "passed": verdict.passed},
            }
        )
    else:
        console.say_verdict(verdict, "the reference")
        console.print_table(
            ["output", "SQNR dB", "cosine", "top-1 agree", "max error", "mean error"],
            (
                [
                    name,
                    f"{output.sqnr_db:.2f}",
                    output.similarity_text,
                    "" if output.top1 is None else f"{output.top1:.2%}",
                    f"{output.max_abs:.4g}",
                    f"{output.mean_abs:.4g}",
                ]
                for name, output in comparison.outputs.items()
            ),
            f"{candidate} against {reference}, {comparison.samples} samples",
        )
    if not verdict.passed:
        raise typer.Exit(3)
