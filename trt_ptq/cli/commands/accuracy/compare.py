"""trt-ptq compare: a model against its reference."""

from __future__ import annotations

from dataclasses import asdict
from itertools import starmap
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq.api.comparing import compare as compare_models
from trt_ptq.cli import console, options
from trt_ptq.evaluation.fidelity import OutputFidelity


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
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="For an ONNX model and an engine built from it: compare their inner tensors, too (builds it again).",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Compare the outputs of a model with those of its reference, or their metrics with --eval.

    ONNX models run on the CPU with ONNX Runtime, engines (.engine, .plan) on the GPU; either side may be either. Exit
    status 3 if --max-drop is not met.

    Example: trt-ptq compare model.onnx int8/model.int8.onnx --data test/

    Example: trt-ptq compare model.onnx int8/model.int8.engine --data test/ --eval metric.py:accuracy
    """
    comparison = compare_models(
        reference,
        candidate,
        data,
        evaluate=evaluate,
        max_drop=max_drop,
        lower_is_better=lower_is_better or (),
        batch_size=batch_size,
        preprocess=preprocess,
        layers=layers,
        progress=console.progress,
    )
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
                    "layers": {name: asdict(tensor) for name, tensor in comparison.layers.items()},
                },
                "metrics": {"reference": comparison.reference_metrics, "candidate": comparison.candidate_metrics},
                "losses": comparison.losses,
                "verdict": {**asdict(verdict), "passed": verdict.passed},
                "warnings": comparison.warnings,
            }
        )
    else:
        console.say_verdict(verdict, "the reference")
        title = f"{candidate} against {reference}, {comparison.samples} samples"
        head = ["SQNR dB", "cosine", "top-1 agree", "max error", "mean error"]
        console.print_table(["output", *head], starmap(_row, comparison.outputs.items()), title)
        if comparison.layers:
            rows = starmap(_row, comparison.layers.items())
            console.print_table(["tensor", *head], rows, "Inner tensors, in the order of the graph (debug build)")
    if not verdict.passed:
        raise typer.Exit(3)


def _row(name: str, output: OutputFidelity) -> list[str]:
    return [
        name,
        f"{output.sqnr_db:.2f}",
        output.similarity_text,
        "" if output.top1 is None else f"{output.top1:.2%}",
        f"{output.max_abs:.4g}",
        f"{output.mean_abs:.4g}",
    ]
