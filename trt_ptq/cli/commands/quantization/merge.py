"""trt-ptq merge: statistics of shards."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq._internal.files import check_writable
from trt_ptq._internal.listing import counted
from trt_ptq.calibrators.statistics.statistics import merge_statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.cli import console, options
from trt_ptq.data.checks.audit import few_samples
from trt_ptq.data.shard import incomplete


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Statistics files of one model.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Statistics file to write.", rich_help_panel=options.OUTPUT, show_default=False
        ),
    ],
    json: options.Json = False,
) -> None:
    """Merge the statistics of several shards of the data, exactly: the file equals that of one run over all the data.

    Missing shards of `trt-ptq calibrate --shard` are reported, and a shard is never counted twice. With several data
    sets, merge the shards of each first.

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
        tensors = counted(len(merged.tensors), "tensor")
        console.say(f"{out}: {counted(len(shards), 'file')}, {merged.data.samples} samples, {tensors}")
