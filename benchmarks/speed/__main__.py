"""Measure what calibration costs, print a table, write JSON.

    python -m benchmarks.speed [--json FILE] [--only resnet50-fused bert ...]

Both sides of a comparison take turns on this machine, for at least 5 rounds; a figure is the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.speed import collecting, memory, modelopt, onnxruntime_calibrators, ranges
from benchmarks.speed.row import Row

MEASUREMENTS: dict[str, Callable[[], Row | list[Row]]] = {
    "resnet50-fused": collecting.resnet50_fused,
    "resnet50-operators": collecting.resnet50_operators,
    "bert": collecting.bert_fused,
    "mobilenet-v2": collecting.mobilenet_v2_fused,
    "onnxruntime-minmax": onnxruntime_calibrators.minmax,
    "onnxruntime-entropy": onnxruntime_calibrators.entropy,
    "onnxruntime-percentile": onnxruntime_calibrators.percentile,
    "modelopt-entropy": modelopt.entropy,
    "modelopt-max": modelopt.maximum,
    "whole-job": modelopt.whole_job,
    "memory-batch-1": memory.single,
    "memory-batch-8": memory.batched,
    "memory-onnxruntime": memory.onnxruntime_peers,
    "memory-modelopt": memory.modelopt_peers,
    "entropy-search": ranges.entropy_search,
    "large-statistics": ranges.large_statistics,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Measure what calibration costs.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), metavar="ROW")
    arguments = parser.parse_args()
    facts = environment()
    console = Console()
    rows: dict[str, list[Row]] = {}
    for name in arguments.only:
        console.print(f"measuring {name} ...", highlight=False)
        measured = MEASUREMENTS[name]()
        rows[name] = measured if isinstance(measured, list) else [measured]
    console.print(table([row for some in rows.values() for row in some]))
    if arguments.json:
        written = {
            "command": "python -m benchmarks.speed",
            "environment": facts,
            "rows": {name: [asdict(row) for row in some] for name, some in rows.items()},
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def table(rows: list[Row]) -> Table:
    """What, target, measured."""
    drawn = Table()
    for heading in ("what", "target", "measured"):
        drawn.add_column(heading, no_wrap=heading == "target")
    for row in rows:
        drawn.add_row(row.what, row.target, row.measured)
    return drawn


if __name__ == "__main__":
    main()
