"""trt-ptq quantize"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.cli import console, options
from trt_ptq.cli.chosen import quantize_config
from trt_ptq.evaluation.fidelity import worst_output
from trt_ptq.evaluation.verdict import format_percent
from trt_ptq.pipeline import quantize as run
from trt_ptq.report.schema import Report

_NOTE = 80  # characters; the report has all


def quantize(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Folder for all results.")] = Path("int8"),
    method: Annotated[
        Optional[str],
        typer.Option(
            help="Range method: entropy, minmax, mse, percentile, or auto (the default): the one with the smallest "
            "output error on calibration data, for the whole model.",
            show_default=False,
        ),
    ] = None,
    percentile: options.PercentileValue = None,
    evaluate: Annotated[
        Optional[str],
        typer.Option(
            "--eval",
            help="file.py:function: takes run(feeds) -> outputs, returns a dict of metrics; higher is better unless "
            "--lower-is-better names the metric. Without it, fidelity to FP32 is judged.",
            show_default=False,
        ),
    ] = None,
    lower_is_better: Annotated[
        Optional[list[str]],
        typer.Option(help="Name of a metric whose lower values are better (repeatable).", show_default=False),
    ] = None,
    max_drop: Annotated[str, typer.Option(help="Accuracy threshold: largest relative loss against FP32.")] = "1%",
    technique: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Accuracy-recovery techniques to apply: equalization, smoothquant, bias-correction (repeatable). "
            "Default: auto (applied only if the loss exceeds --max-drop and they help). 'none' disables them.",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Nodes that are not quantized: node or output names, op types, or patterns with * (repeatable).",
            show_default=False,
        ),
    ] = None,
    include: Annotated[
        Optional[list[str]],
        typer.Option(help="Quantize these nodes only, named as for --exclude (repeatable).", show_default=False),
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            help="Where the loss still exceeds --max-drop, exclude the most sensitive layers from quantization."
        ),
    ] = True,
    recipe: Annotated[
        Optional[Path],
        typer.Option(
            help="Quantize by a recipe.yaml that an earlier run wrote and you may have edited; nothing is tuned.",
            show_default=False,
        ),
    ] = None,
    test_data: options.TestData = None,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    tensors: options.Tensors = ["fused"],
    attention: options.Attention = False,
    nonfinite: options.Nonfinite = "refuse",
    memory_limit: options.MemoryLimit = None,
    device: options.Device = "cpu",
    until_stable: options.UntilStable = None,
    high_precision: Annotated[
        Optional[str],
        typer.Option(
            help="What is not INT8: fp16 (fp32 where float16's range does not do, measured and reported), or fp32. "
            "fp16 unless given.",
            show_default=False,
        ),
    ] = None,
    shape: options.Shapes = None,
    backend: options.Backend = "auto",
    json: options.Json = False,
) -> None:
    """The whole job: calibrate, convert to Q/DQ, compare with FP32 and FP16, build engines, report.

    Leaves in --out: stats.safetensors, calibration.cache, calibration.json, model.int8.onnx, model.fp16.onnx, engines
    with their manifests, recipe.yaml, report.json, report.html, and model.transformed.onnx if a technique changed the
    float model. Exit status 3 when the loss is over --max-drop.

    If the loss exceeds --max-drop, trt-ptq tries equalization, SmoothQuant and bias correction, then other range
    methods, then excludes the most sensitive layers. Without --eval, candidates are selected on one half of the
    held-out batches and the verdict is computed on the other.

    Example: trt-ptq quantize model.onnx --data calibration/ --eval metric.py:accuracy --out int8/
    """
    config = quantize_config(
        recipe,
        shape,
        method=method,
        percentile=percentile,
        max_drop=max_drop,
        techniques=technique,
        nodes_to_exclude=exclude,
        nodes_to_include=include,
        attention=attention,
        high_precision=high_precision,
        tensors=tensors,
        nonfinite=nonfinite,
        device=device,
        memory_limit=memory_limit,
        until_stable=until_stable,
        batch_size=batch_size,
        backend=backend,
        lower_is_better=lower_is_better,
    )
    result = run(
        model,
        data,
        evaluate=evaluate,
        test_data=test_data,
        output_dir=out,
        config=config if search else replace(config, search=False),
        preprocess=preprocess,
        progress=console.progress,
    )
    for warning in result.report.warnings:
        console.warn(warning)
    if json:
        console.print_json(result.report.model_dump(mode="json"))
    else:
        _show(result.report, out)
    if result.engine_error:
        raise result.engine_error
    if not result.report.verdict.passed:
        raise typer.Exit(3)


def _show(report: Report, out: Path) -> None:
    metrics = sorted({name for one in report.models for name in one.metrics})
    engines = {one.precision: f"{one.size_bytes / 1e6:.2f}" for one in report.engines}
    rows = []
    for one in report.models:
        worst = worst_output(one.fidelity)
        rows.append(
            [
                one.precision.upper(),
                *(f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in metrics),
                f"{worst.sqnr_db:.1f}" if worst else "",
                worst.similarity_text if worst else "",
                "" if worst is None or worst.top1 is None else f"{worst.top1:.2%}",
                f"{one.size_bytes / 1e6:.2f}",
                engines.get(one.precision, ""),
            ]
        )
    head = ["", *metrics, "SQNR dB", "cosine", "top-1 agreement", "ONNX MB", "engine MB"]
    console.print_table(head, rows, f"{report.model}, method {report.method}")
    _show_trials(report)
    verdict = report.verdict
    passes = f" in {report.passes} passes" if report.passes > 1 else ""
    console.say(
        f"{report.int8_summary}, the rest in {_rest(report)}; ranges of {len(report.tensors)} tensors from "
        f"{report.fingerprint.samples} samples{passes}; compared on {report.held_out_samples} held-out samples"
    )
    if report.stability and report.stability.stable:
        console.say(str(report.stability))
    console.say(
        f"verdict: {verdict.grade} ({verdict.metric}: {verdict.loss:.2%} loss against FP32; allowed "
        f"{format_percent(verdict.max_drop)}: {'passed' if verdict.passed else 'FAILED'})"
    )
    console.say(f"results in {out}/: open {out / 'report.html'}")


def _show_trials(report: Report) -> None:
    """How the loss came about, and went."""
    names = sorted({name for one in report.trials for name in one.losses})
    rows = [
        [
            one.name,
            *(f"{one.losses[name]:.2%}" if name in one.losses else "" for name in names),
            one.decision,
            textwrap.shorten(one.note, _NOTE),
        ]
        for one in report.trials
    ]
    console.print_table(["in INT8", *(f"loss: {name}" for name in names), "", ""], rows)


def _rest(report: Report) -> str:
    fp32 = f" but for {len(report.fp32_nodes)} nodes in FP32" if report.fp32_nodes else ""
    return report.high_precision.upper() + fp32
