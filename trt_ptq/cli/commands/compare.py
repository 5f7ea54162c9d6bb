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
from trt_ptq.errors import UsageError
from trt_ptq.evaluation.compare_engines import compare_engines, engine_inputs
from trt_ptq.evaluation.compare_models import compare_models, fidelity_losses, fidelity_warnings
from trt_ptq.evaluation.metrics import evaluate_model, evaluate_reference, metric_losses
from trt_ptq.evaluation.verdict import format_percent, judge
from trt_ptq.onnx_io.load import read_inputs

_ENGINES = (".engine", ".plan")


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
    gate = parse_max_drop(max_drop)
    function = load_function(evaluate) if evaluate else None
    on_gpu = reference.suffix in _ENGINES
    if on_gpu != (candidate.suffix in _ENGINES):
        raise UsageError(f"{reference} and {candidate}: compare two ONNX models, or two engines")
    if on_gpu and function is not None:
        raise UsageError("--eval judges ONNX models, not engines")
    inputs = engine_inputs(reference) if on_gpu else read_inputs(reference)
    if not on_gpu:
        read_inputs(candidate)
    source = ValidatedSource(open_data(data, inputs, batch_size=batch_size, preprocess=preprocess), inputs)
    if on_gpu:
        comparison = compare_engines(reference, candidate, source, console.progress)
    else:
        comparison = compare_models(reference, [candidate], source, console.progress)[0]
    if function is None or evaluate is None:
        losses = fidelity_losses(comparison)
    else:
        losses = metric_losses(
            evaluate_reference(reference, function, evaluate), evaluate_model(candidate, function, evaluate)
        )
    for warning in fidelity_warnings(comparison):
        console.warn(warning)
    verdict = judge(losses, gate)
    if json:
        console.print_json(
            {
                "comparison": asdict(comparison),
                "losses": losses,
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
            f"verdict: {verdict.grade} ({verdict.metric}: {verdict.loss:.2%} loss; allowed {format_percent(gate)}: "
            f"{'passed' if verdict.passed else 'FAILED'})"
        )
    if not verdict.passed:
        raise typer.Exit(3)
