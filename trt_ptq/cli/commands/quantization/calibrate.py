"""trt-ptq calibrate: statistics from a model and data."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from trt_ptq import choices
from trt_ptq._internal.listing import counted
from trt_ptq.api.calibrating import collect
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibration.ray.ray_backend import collect_on_ray
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import range_method
from trt_ptq.cli import console, options
from trt_ptq.cli.calibration_checks import check_outputs, skipped_values
from trt_ptq.cli.language.calibrate_text import save_text_statistics, takes_text
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.open import open_data
from trt_ptq.data.shard import ShardedSource, parse_shard
from trt_ptq.data.user_function import read_from
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.onnx_io.load import load_model
from trt_ptq.provenance import join_shards


def calibrate(
    model: options.ModelOrFolder,
    data: options.Data,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    task: options.Task = None,
    tokenizer: options.Tokenizer = None,
    text_column: options.TextColumn = None,
    group_column: options.GroupColumns = None,
    max_length: options.MaxLength = None,
    samples: options.Samples = None,
    by_length: Annotated[
        bool,
        typer.Option(
            "--by-length",
            help="Also save the statistics of each length of text, and show how the ranges drift with it.",
            rich_help_panel=options.TEXT,
        ),
    ] = False,
    shard: Annotated[
        Optional[str],
        typer.Option(
            metavar="INDEX/COUNT",
            help="Use every COUNT-th batch only, starting at INDEX (0/8 to 7/8), so that COUNT machines share the "
            "work. `trt-ptq merge` merges their statistics.",
            rich_help_panel=options.DATA,
            show_default=False,
        ),
    ] = None,
    tensors: options.Tensors = ["fused"],
    attention: options.Attention = False,
    nonfinite: options.Nonfinite = "refuse",
    until_stable: options.UntilStable = None,
    method: Annotated[
        Optional[choices.MethodName],
        typer.Option(
            metavar="METHOD",
            help="Range method whose ranges --until-stable observes: entropy, minmax, mse or percentile (default).",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    percentile: options.PercentileValue = None,
    memory_limit: options.MemoryLimit = None,
    device: options.Device = "cpu",
    checkpoint: Annotated[
        Optional[Path],
        typer.Option(
            help="Save the state to this file every two minutes; the same command resumes from it, with the same "
            "result to the byte. Removed at the end.",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        Optional[str],
        typer.Option(
            metavar="ADDRESS",
            help="Share the work among the CPUs of a Ray cluster: local (start one on this machine), auto (the cluster "
            'of this machine), or HOST:PORT. Needs pip install "trt-ptq\\[ray]".',
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Statistics file to write.", rich_help_panel=options.OUTPUT)
    ] = Path("stats.safetensors"),
    json: options.Json = False,
) -> None:
    """Run a model over data once, and save the statistics of its tensors.

    All range methods work from these statistics, without the data: see `trt-ptq table`. How many samples are enough:
    docs/how-many-samples.md.

    Example: trt-ptq calibrate model.onnx --data calibration/ -o stats.safetensors
    """
    text_options: dict[str, Any] = {
        "text_column": text_column,
        "group_columns": group_column or (),
        "max_length": max_length,
        "samples": samples,
    }
    if takes_text(model, tokenizer, QuantizeConfig(task=task, **text_options), by_length):
        _check_alone(
            "--task",
            preprocess=preprocess,
            until_stable=until_stable,
            method=method,
            percentile=percentile,
            ray=ray,
        )
        if by_length:
            _check_alone("--by-length", shard=shard, checkpoint=checkpoint)
        text_config = QuantizeConfig(
            task="text-generation",
            tensors=tensors,
            attention=attention,
            nonfinite=nonfinite,
            device=device,
            memory_limit=memory_limit,
            batch_size=batch_size,
            **text_options,
        )
        save_text_statistics(
            model, data, tokenizer, out, text_config, by_length=by_length, shard=shard, path=checkpoint, json=json
        )
        return
    if ray is not None:
        _check_alone(
            "--ray",
            shard=shard,
            memory_limit=memory_limit,
            device=device,
            checkpoint=checkpoint,
            until_stable=until_stable,
        )
    if shard is not None and until_stable is not None:
        raise UsageError("--until-stable needs all samples, and a shard has only some: omit --until-stable or --shard")
    if until_stable is None and (method is not None or percentile is not None):
        raise UsageError(
            "--method selects the ranges that --until-stable monitors: omit it, or add --until-stable; statistics do "
            "not depend on the method (choose it later, with trt-ptq table --method)"
        )
    monitored = range_method(method or "percentile", percentile)
    config = QuantizeConfig(
        tensors=tensors,
        attention=attention,
        nonfinite=nonfinite,
        device=device,
        memory_limit=memory_limit,
        until_stable=until_stable,
        batch_size=batch_size,
    )
    loaded = load_model(model)
    inputs = (model, *loaded.external.files, *read_from(data, preprocess))
    check_outputs(out, checkpoint, inputs)
    limit_bytes = None if config.memory_limit is None else int(config.memory_limit)
    checkpoint_file = None if checkpoint is None else Checkpoint(checkpoint, memory_limit=limit_bytes)
    source = open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess)
    num_passes, stability = 1, None
    if ray is not None:
        calibration_tensors = select_calibration_tensors(loaded, tensors, attention)
        incomparable = check_loaded(loaded, ValidatedSource(source, loaded.inputs, nonfinite == "skip"))
        result = collect_on_ray(
            loaded, source, calibration_tensors, nonfinite, ray, partial(console.progress, unit="shards")
        )
        statistics, findings = result.statistics, incomparable + result.audit.findings() + result.incidents
    else:
        sharded = None if shard is None else ShardedSource(source, *parse_shard(shard))
        with console.resumable(None if checkpoint_file is None else checkpoint_file.path):
            collected = collect(loaded, sharded or source, config, monitored, console.progress, checkpoint_file)
        statistics, findings = collected.statistics, collected.findings
        num_passes, stability = len(collected.passes), collected.stability
        if sharded is not None:
            statistics = replace(statistics, shards=join_shards((), [sharded.shard]))
    statistics.save(out)
    resumed_samples = 0
    if checkpoint_file is not None:
        checkpoint_file.remove()
        if checkpoint_file.resumed is not None:
            num_passes = len(checkpoint_file.resumed.passes)
            resumed_samples = checkpoint_file.resumed.statistics.data.samples
    findings += skipped_values(statistics)
    for finding in findings:
        console.warn(finding)
    if json:
        console.print_json(
            {
                "statistics": str(out),
                "tensors": len(statistics.tensors),
                "data": asdict(statistics.data),
                "passes": num_passes,
                "resumed_samples": resumed_samples,
                "stability": asdict(stability) if stability else None,
                "warnings": findings,
            }
        )
        return
    console.say(
        f"{out}: {counted(len(statistics.tensors), 'tensor')} over {statistics.data.samples} samples"
        + (f", in {num_passes} passes" if num_passes > 1 else "")
        + (f", {resumed_samples} of them from {checkpoint}" if resumed_samples else "")
    )
    if stability and stability.stable:
        console.say(str(stability))


def _check_alone(other: str, **options_by_name: object) -> None:
    """Make sure that none of the options was given, beside `other`."""
    used = [name for name, value in options_by_name.items() if value not in (None, "cpu", "refuse")]
    if used:
        raise UsageError(f"--{used[0].replace('_', '-')} does not work with {other}: omit one of the two")
