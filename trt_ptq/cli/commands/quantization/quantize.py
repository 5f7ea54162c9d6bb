"""trt-ptq quantize: the whole job in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq import choices
from trt_ptq._internal.listing import counted
from trt_ptq.cli import console, options
from trt_ptq.cli.commands.quantization.quantize_options import TechniqueName, quantize_config
from trt_ptq.cli.language.language_report import show_language
from trt_ptq.engines.cost import DEFAULT_GPU
from trt_ptq.evaluation.fidelity import worst_output
from trt_ptq.evaluation.verdict import format_loss
from trt_ptq.output import TRIALS
from trt_ptq.pipeline import quantize as run
from trt_ptq.report.option_names import with_options
from trt_ptq.report.schema import Report

_TRIALS = "trials: losses on the selection data, with FP32 around INT8"


def quantize(
    model: options.ModelOrFolder,
    data: options.Data,
    test_data: options.TestData = None,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    task: options.Task = None,
    tokenizer: options.Tokenizer = None,
    text_column: options.TextColumn = None,
    group_column: options.GroupColumns = None,
    max_length: options.MaxLength = None,
    samples: options.Samples = None,
    stats: Annotated[
        Optional[Path],
        typer.Option(
            help="Statistics of this model to start from, instead of calibrating: from `trt-ptq calibrate`, or "
            "stats.safetensors of an interrupted run.",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        Optional[choices.Mode],
        typer.Option(
            help="w8a8: weights and activations in INT8 (default). w8a16: weights only. mixed: where w8a8 "
            "loses too much, range methods by kind of layer, and then layers in w8a16.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        Optional[choices.Method],
        typer.Option(
            metavar="METHOD",
            help="Range method: entropy, minmax, mse, percentile, or auto (default): the method with the smallest "
            "output error on calibration data, for the whole model.",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    percentile: options.PercentileValue = None,
    tensors: options.Tensors = ["fused"],
    attention: options.Attention = False,
    nonfinite: options.Nonfinite = "refuse",
    until_stable: options.UntilStable = None,
    memory_limit: options.MemoryLimit = None,
    scratch_limit: Annotated[
        Optional[str],
        typer.Option(
            metavar="SIZE",
            help="Disk space in the folder for temporary files, such as 4GB, for batches and FP32 outputs that are "
            "needed again; beyond it they are read and computed again. Default: a tenth of what is free.",
            rich_help_panel=options.DATA,
            show_default=False,
        ),
    ] = None,
    device: options.Device = "cpu",
    evaluate: options.Evaluate = None,
    lower_is_better: options.LowerIsBetter = None,
    max_drop: options.MaxDrop = "1%",
    technique: Annotated[
        Optional[list[TechniqueName]],
        typer.Option(
            metavar="TECHNIQUE",
            help="Accuracy-recovery techniques to apply: equalization, rotation, smoothquant, gptq, bias-correction "
            "(repeatable). Default: auto (rotation, smoothquant and gptq for language models; others only if INT8 "
            "misses --max-drop and they help), or none.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    no_search: Annotated[
        bool,
        typer.Option(
            "--no-search",
            help="Do not exclude sensitive layers from INT8 when INT8 does not meet --max-drop.",
            rich_help_panel=options.ACCURACY,
        ),
    ] = False,
    effort: Annotated[
        choices.Effort,
        typer.Option(
            metavar="EFFORT",
            help="How many candidates are tried when INT8 does not meet --max-drop: low, medium, high.",
            rich_help_panel=options.ACCURACY,
        ),
    ] = "medium",
    time_limit: Annotated[
        Optional[str],
        typer.Option(
            metavar="TIME",
            help="When the run has taken this long (90s, 10m, 2h), no further candidate is tried, and the best so far "
            "is the result. Run the same command again to go on.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    exclude: options.Exclude = None,
    include: options.Include = None,
    high_precision: Annotated[
        Optional[choices.HighPrecision],
        typer.Option(
            help="Precision of the nodes that are not INT8: fp16 (default; nodes where float16 would overflow stay in "
            "FP32), or fp32.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    kv_cache: Annotated[
        Optional[choices.CachePrecision],
        typer.Option(
            help="Precision of a language model's cache of keys and values: float (default), or int8 in the inputs and "
            "outputs of the INT8 model, with scales in kv_cache.json.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Optional[Path],
        typer.Option(
            help="Quantize by a recipe.yaml that an earlier run wrote (and that you may have edited), without tuning.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    backend: options.Backend = "auto",
    target: options.Target = None,
    gpu: options.Gpu = DEFAULT_GPU,
    require_speedup: options.RequireSpeedup = None,
    shape: options.Shapes = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for all results.", rich_help_panel=options.OUTPUT)
    ] = Path("int8"),
    json: options.Json = False,
) -> None:
    """Calibrate and quantize a model, compare it with FP32 and FP16, build engines and write a report.

    Writes to --out: model.int8.onnx, model.fp16.onnx, engines with their manifests, stats.safetensors,
    calibration.cache, calibration.json, recipe.yaml, trials.jsonl, report.json and report.html;
    model.transformed.onnx if a technique changed the float model; model.fp32.onnx if the model was a folder; and
    kv_cache.json with --kv-cache int8. Exit status 3 if INT8 does not meet --max-drop or --require-speedup. If it
    does, but the INT8 engine cannot be built, all other results are written and the exit status is 2.

    If INT8 does not meet --max-drop, trt-ptq tries equalization, SmoothQuant and bias correction, then other range
    methods, then excludes the most sensitive layers. Without --eval, candidates are selected on one half of the
    held-out batches and the verdict is computed on the other. See docs/accuracy.md.

    Example: trt-ptq quantize model.onnx --data calibration/ --eval metric.py:accuracy --out int8/
    """
    config = quantize_config(
        recipe,
        shape,
        mode=mode,
        method=method,
        percentile=percentile,
        max_drop=max_drop,
        techniques=technique and [choice.value for choice in technique],
        nodes_to_exclude=exclude,
        nodes_to_include=include,
        effort=effort,
        time_limit=time_limit,
        attention=attention,
        high_precision=high_precision,
        kv_cache=kv_cache,
        tensors=tensors,
        nonfinite=nonfinite,
        device=device,
        memory_limit=memory_limit,
        scratch_limit=scratch_limit,
        until_stable=until_stable,
        batch_size=batch_size,
        task=task,
        text_column=text_column,
        group_columns=group_column,
        max_length=max_length,
        samples=samples,
        backend=backend,
        target=target,
        gpu=gpu,
        require_speedup=require_speedup,
        lower_is_better=lower_is_better,
    )
    with console.resumable(out / TRIALS):
        result = run(
            model,
            data,
            evaluate=evaluate,
            test_data=test_data,
            tokenizer=tokenizer,
            stats=stats,
            output_dir=out,
            config=replace(config, search=not no_search),
            preprocess=preprocess,
            progress=console.progress,
        )
    for warning in result.report.warnings:
        console.warn(warning)
    if json:
        console.print_json(result.report.model_dump(mode="json"))
    else:
        _show(result.report, out)
    if not result.report.verdict.passed or (not result.engine_error and not result.fast_enough):
        raise typer.Exit(3)
    if result.engine_error:
        raise result.engine_error


def _show(report: Report, out: Path) -> None:
    console.say_verdict(report.verdict)
    if report.speed_verdict:
        console.say(f"speed: {report.speed_verdict}")
    if report.placement:
        console.say(with_options(report.placement))
    metrics = sorted({name for result in report.models for name in result.metrics})
    engines = {engine.precision: f"{engine.size_bytes / 1e6:.2f}" for engine in report.engines}
    names_worst = any(len(result.fidelity) > 1 for result in report.models)
    rows = []
    for result in (*report.models, *report.evaluated_engines):
        worst = worst_output(result.fidelity)
        is_model = result in report.models
        rows.append(
            [
                result.precision.upper() + ("" if is_model else " engine"),
                *(f"{result.metrics[name]:.4f}" if name in result.metrics else "" for name in metrics),
                f"{worst.sqnr_db:.1f}" if worst else "",
                "" if worst is None or worst.top1 is None else f"{worst.top1:.2%}",
                *([next((name for name, output in result.fidelity.items() if output is worst), "")] * names_worst),
                f"{result.size_bytes / 1e6:.2f}" if is_model else "",
                engines.get(result.precision, ""),
            ]
        )
    head = ["", *metrics, "SQNR dB", "top-1 agree", *["worst output"] * names_worst, "ONNX MB", "engine MB"]
    method = f", method {report.method}" if report.num_used_ranges else ""
    console.print_table(head, rows, Path(report.model).name + method)
    if report.language:
        show_language(report.language)
    _show_trials(report)
    passes = f" in {report.passes} passes" if report.passes > 1 else ""
    tensors = counted(report.num_used_ranges, "tensor")
    ranges = f"ranges of {tensors} from {report.calibration_data}{passes}" if report.num_used_ranges else "no ranges"
    console.say(
        f"{report.int8_summary}, the rest in {_rest(report)}; {ranges}; compared on {report.comparison_data}; "
        f"the verdict is on {report.verdict_basis}"
    )
    if report.stability and report.stability.stable:
        console.say(str(report.stability))
    console.say(f"results in {out}/: open {out / 'report.html'}")


def _show_trials(report: Report) -> None:
    """Print the loss or error of each trial; notes are in the report."""
    losses = sorted({name for trial in report.trials for name in trial.losses})
    allowed = report.verdict.max_drop
    has_errors = any(trial.output_error is not None for trial in report.trials)
    rows = [
        [
            trial.name,
            *(format_loss(trial.losses[name], allowed) if name in trial.losses else "" for name in losses),
            *(["" if trial.output_error is None else format_loss(trial.output_error)] if has_errors else []),
            trial.decision,
        ]
        for trial in report.trials
    ]
    errors = ["output error (calibration)"] if has_errors else []
    console.print_table(["trial", *map(report.loss_title, losses), *errors, "decision"], rows, _TRIALS)


def _rest(report: Report) -> str:
    fp32 = f" except {counted(len(report.fp32_nodes), 'node')} in FP32" if report.fp32_nodes else ""
    return report.high_precision.upper() + fp32
