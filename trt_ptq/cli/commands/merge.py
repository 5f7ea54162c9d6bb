"""trt-ptq merge"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq._internal.files import check_writable
from trt_ptq.calibrators.statistics.statistics import merge_statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics, save_statistics
from trt_ptq.cli import console, options
from trt_ptq.data.audit import few_samples
from trt_ptq.data.shard import incomplete


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Statistics files of one model.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Statistics file to write.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Merge statistics of shards of the data: bit for bit what one run over all of it gives.

    Shards of `calibrate --shard` that are missing are named, and none is taken twice; of several data sets, merge the
    shards of each by itself first.

    Example: trt-ptq merge shard0.safetensors shard1.safetensors -o stats.safetensors
    """
    check_writable(out, *shards)
    merged = merge_statistics(load_statistics(shard) for shard in shards)
    save_statistics(merged, out)
    findings = few_samples(merged.data.samples) + incomplete(merged.shards)
    for finding in findings:
        console.warn(finding)
    if json:
        console.print_json(
            {
                "statistics": str(out),
                "tensors": len(merged.tensors),
                "data": asdict(merged.data),
                "warnings": findings,
            }
        )
    else:
        console.say(f"{out}: {len(shards)} shards, {merged.data.samples} samples, {len(merged.tensors)} tensors")
