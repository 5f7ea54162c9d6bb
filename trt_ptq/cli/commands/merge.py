"""trt-ptq merge"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq._internal.files import check_writable
from trt_ptq.calibrators.statistics.statistics import merge_statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.cli import console, options
from trt_ptq.data.audit import few_samples
from trt_ptq.data.shard import incomplete


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Statistics files of the same model.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Statistics file to write.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Merge the statistics of shards of the data. The result is bit-identical to one run over all data.

    Missing shards of `calibrate --shard` are reported, and duplicates are rejected. To merge several data sets, first
    merge the shards of each data set.

    Example: trt-ptq merge shard0.safetensors shard1.safetensors -o stats.safetensors
    """
    check_writable(out, *shards)
    merged = merge_statistics(load_statistics(shard) for shard in shards)
    merged.save(out)
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
