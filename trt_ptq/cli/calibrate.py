"""trt-ptq calibrate"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.calibrators.files import check_writable
from trt_ptq.calibrators.statistics.store import save_statistics
from trt_ptq.cli import console, options
from trt_ptq.cli.parse import parse_nonfinite
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
    if shard:
        source = ShardedSource(source, *parse_shard(shard))
    audited = AuditedSource(CheckedSource(source, loaded.inputs, allow_nonfinite=policy == "skip"))
    statistics = collect(loaded, audited, taps, policy, console.track)
    save_statistics(statistics, out)
    skipped = {name: tensor.nonfinite for name, tensor in statistics.tensors.items() if tensor.nonfinite}
    findings = audited.findings(is_shard=bool(shard)) + [
        f"tensor {name!r}: {count} NaN or infinite values skipped" for name, count in skipped.items()
    ]
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
