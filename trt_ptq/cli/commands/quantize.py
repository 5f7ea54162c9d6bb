"""trt-ptq quantize"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.calibration.devices import open_device
from trt_ptq.cli import console, options
from trt_ptq.cli.chosen import QuantizationChoices
from trt_ptq.cli.parse import parse_max_drop, parse_memory_limit, parse_nonfinite, parse_tolerance
from trt_ptq.config import QuantizeJob
from trt_ptq.data.open import open_data
from trt_ptq.data.shape_profiles import check_profiles
from trt_ptq.data.user_function import load_function
from trt_ptq.engines.backends import check_backend
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.evaluation.fidelity import worst_output
from trt_ptq.evaluation.verdict import format_percent
from trt_ptq.onnx_io.load import load_model
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
            "output error against FP32 on calibration data.",
            show_default=False,
        ),
    ] = None,
    percentile: options.PercentileValue = None,
    evaluate: Annotated[
        Optional[str],
        typer.Option(
            "--eval",
            help="file.py:function: takes run(feeds) -> outputs, returns a dict of metrics; higher is better unless "
            "the name ends in _lower. Without it, fidelity to FP32 is judged.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[str, typer.Option(help="The accuracy gate: largest relative loss against FP32.")] = "1%",
    repair: Annotated[
        Optional[list[str]],
        typer.Option(
            help="equalization (convolutions in a row), smoothquant, bias-correction: made in any case "
            "(repeat). auto, unless given: where the loss is above --max-drop, what lowers it and takes outputs no "
            "further away. Or none.",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option(help="Where the loss is above --max-drop, find the fewest layers to leave in float.")
    ] = True,
    recipe: Annotated[
        Optional[Path],
        typer.Option(
            help="Do what a recipe.yaml says, which an earlier run wrote and you may have edited; no more is tried.",
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

    The loss is told in stages: weights only in INT8, activations only, both. Where it is above --max-drop, repairs are
    tried, then (with --eval) two more range methods, then layers are left in float, with the range method that is
    closest then; with --eval by half of --max-drop, unless that takes over twice the layers. All are judged by --eval
    on its own data (so the verdict may flatter), else by half of the held-out batches, with the verdict on the other.

    Example: trt-ptq quantize model.onnx --data calibration/ --eval metric.py:accuracy --out int8/
    """
    place = open_device(device)
    limit = parse_memory_limit(memory_limit, device)
    chosen = QuantizationChoices.of(method, percentile, repair, attention, high_precision)
    if recipe:
        chosen.check_alone(recipe)
    loaded = load_model(model)
    if recipe:
        chosen = QuantizationChoices.by_recipe(recipe, loaded.identity)
    profiles = parse_profiles(shape or [])
    check_profiles(profiles, loaded.inputs)
    check_backend(backend)
    source = open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess)
    test = open_data(test_data, loaded.inputs, batch_size=batch_size, preprocess=preprocess) if test_data else None
    job = QuantizeJob(
        model=loaded,
        source=source,
        test=test,
        data_name=data,
        method=chosen.method,
        alternatives=chosen.alternatives,
        out=out,
        tensors=tuple(tensors),
        attention=chosen.attention,
        nonfinite=parse_nonfinite(nonfinite),
        device=place,
        memory_limit=limit,
        until_stable=None if until_stable is None else parse_tolerance(until_stable),
        profiles=profiles,
        backend=backend,
        high_precision=chosen.high_precision,
        evaluate=load_function(evaluate) if evaluate else None,
        eval_name=evaluate or "",
        max_drop=parse_max_drop(max_drop),
        techniques=chosen.techniques,
        nodes_to_exclude=chosen.nodes_to_exclude,
        repair=chosen.repair,
        search=search and recipe is None,
        progress=console.progress,
        tell=console.tell,
    )
    result = run(job)
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
