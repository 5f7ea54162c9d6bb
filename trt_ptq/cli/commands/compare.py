"""trt-ptq compare"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.cli import console, options
from trt_ptq.cli.parse import parse_max_drop
from trt_ptq.data.open import open_data
from trt_ptq.data.user_function import load_function
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.evaluation.compare_engines import engine_inputs
from trt_ptq.evaluation.comparison import check_comparable, compare_with_reference, is_engine
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.evaluation.verdict import format_percent
from trt_ptq.onnx_io.load import read_inputs


def compare(
    reference: Annotated[Path, typer.Argument(help="The float ONNX model, or an engine.", show_default=False)],
    candidate: Annotated[Path, typer.Argument(help="The ONNX model or engine to judge.", show_default=False)],
    data: options.Data,
    evaluate: Annotated[
        Optional[str],
        typer.Option("--eval", help="file.py:function with your own metric.", show_default=False),
    ] = None,
    max_drop: Annotated[str, typer.Option(help="The accuracy gate: largest relative loss.")] = "1%",
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    json: options.Json = False,
) -> None:
    """Compare a model with its reference on data. Exit status 3 when the loss is over --max-drop.

    Two ONNX models run on ONNX Runtime's CPU, two engines (.engine, .plan) on the GPU.

    Example: trt-ptq compare model.onnx int8/model.int8.onnx --data test/
    """
    metric = UserMetric(load_function(evaluate), evaluate) if evaluate else None
    threshold = parse_max_drop(max_drop)
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
        console.print_table(
            ["output", "SQNR dB", "cosine", "top-1 agreement", "max error", "mean error"],
            (
                [
                    name,
                    f"{one.sqnr_db:.2f}",
                    one.similarity_text,
                    "" if one.top1 is None else f"{one.top1:.2%}",
                    f"{one.max_abs:.4g}",
                    f"{one.mean_abs:.4g}",
                ]
                for name, one in comparison.outputs.items()
            ),
            f"{candidate} against {reference}, {comparison.samples} samples",
        )
        console.say(
            f"verdict: {verdict.grade} ({verdict.metric}: {verdict.loss:.2%} loss; allowed "
            f"{format_percent(threshold)}: {'passed' if verdict.passed else 'FAILED'})"
        )
    if not verdict.passed:
        raise typer.Exit(3)
