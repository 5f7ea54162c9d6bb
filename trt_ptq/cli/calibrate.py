"""trt-ptq calibrate"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.calibrators.files import check_writable
from trt_ptq.calibrators.statistics.store import save_statistics
from trt_ptq.cli import console, options
from trt_ptq.cli.parse import parse_nonfinite
from trt_ptq.collect.cluster import collect_on_ray
from trt_ptq.collect.collector import collect
from trt_ptq.data.audit import AuditedSource
from trt_ptq.data.checked import CheckedSource
from trt_ptq.data.open import open_source
from trt_ptq.data.shard import ShardedSource, parse_shard
from trt_ptq.graph.model import load_model
from trt_ptq.graph.taps import choose_taps


def calibrate(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Statistics file to write.")] = Path("stats.safetensors"),
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    tensors: options.Tensors = ["fused"],
    nonfinite: options.Nonfinite = "refuse",
    shard: Annotated[
        Optional[str],
        typer.Option(
            help="INDEX/COUNT, counted from 0 (0/8 to 7/8): take every COUNT-th batch only, so that COUNT machines "
            "share the work; `trt-ptq merge` puts their statistics together.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        Optional[str],
        typer.Option(
            metavar="local|auto|ADDRESS",
            help="Share the work among the CPUs of a Ray cluster: one started on this machine (local), the one that "
            'this machine belongs to (auto), or HOST:PORT. Needs pip install "trt-ptq\\[ray]".',
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run the model over the data once and keep the statistics of its tensors.

    Every range method works from the statistics alone; statistics of several shards of data merge exactly.

    Example: trt-ptq calibrate model.onnx --data calibration/ -o stats.safetensors
    """
    policy = parse_nonfinite(nonfinite)
    loaded = load_model(model)
    check_writable(out, model, Path(data))
    taps = choose_taps(loaded, tensors)
    source = open_source(data, loaded.inputs, batch_size, preprocess)
    if ray is not None:
        if shard is not None:
            raise UsageError("--shard and --ray both share the data out: give one of them")
        result = collect_on_ray(loaded, source, taps, policy, ray, partial(console.track, unit="shards"))
        statistics, findings = result.statistics, result.audit.findings() + result.incidents
    else:
        if shard is not None:
            source = ShardedSource(source, *parse_shard(shard))
        audited = AuditedSource(CheckedSource(source, loaded.inputs, allow_nonfinite=policy == "skip"))
        statistics = collect(loaded, audited, taps, policy, console.track)
        findings = audited.findings(is_shard=shard is not None)
    save_statistics(statistics, out)
    skipped = {name: tensor.nonfinite for name, tensor in statistics.tensors.items() if tensor.nonfinite}
    findings += [f"tensor {name!r}: {count} NaN or infinite values skipped" for name, count in skipped.items()]
    for finding in findings:
        console.warn(finding)
    if json:
        console.print_json(
            {
                "statistics": str(out),
                "tensors": len(statistics.tensors),
                "data": asdict(statistics.data),
                "warnings": findings,
            }
        )
    else:
        console.say(f"{out}: {len(statistics.tensors)} tensors over {statistics.data.samples} samples")
