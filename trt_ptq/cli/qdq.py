"""trt-ptq qdq"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.calibrators.files import check_writable
from trt_ptq.cli import console, options
from trt_ptq.cli.parse import parse_high_precision
from trt_ptq.cli.tables import read_table
from trt_ptq.collect.magnitudes import measure_amax
from trt_ptq.data.checked import CheckedSource
from trt_ptq.data.open import open_source
from trt_ptq.graph.float16_range import KeptNode
from trt_ptq.graph.half import halve
from trt_ptq.graph.migration import MigrationReport, Unmatched, migrate_table
from trt_ptq.graph.model import load_model
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import save_model

_ROWS = 20  # of each list, for people; --json has all


def qdq(
    model: options.Model,
    table: Annotated[
        Path, typer.Option(help="TensorRT cache, .json table, or ONNX Runtime's .flatbuffers.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Q/DQ model to write.")] = Path("model.int8.onnx"),
    high_precision: Annotated[
        Optional[str],
        typer.Option(
            help="What is not INT8: fp16 or fp32; fp16 with --data, which tells where float16 would overflow, else "
            "fp32.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Optional[str],
        typer.Option(
            help="A few representative inputs, to keep in FP32 what float16 cannot hold (forms: see quantize).",
            show_default=False,
        ),
    ] = None,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    allow_other_model: options.AllowOtherModel = False,
    json: options.Json = False,
) -> None:
    """Make an explicit Q/DQ model for TensorRT 10, 11 and RTX from a float model and a table.

    Tells which names of the table are in the model, and which ranges were derived from others.

    The ranges need no data. To have FP16 beside INT8 rather than FP32, give some with --data.

    Example: trt-ptq qdq model.onnx --table calibration.cache -o model.int8.onnx
    """
    precision = parse_high_precision(high_precision or ("fp16" if data else "fp32"))
    check_writable(out, model, table, *([Path(data)] if data else []))
    loaded = load_model(model)
    ranges = read_table(table)
    if not allow_other_model:
        ranges.refuse_other_model(loaded.identity, str(table))
    migrated = migrate_table(loaded.to_ir().graph, ranges, str(table))
    result = insert_qdq(loaded, migrated.table)
    kept: tuple[KeptNode, ...] = ()
    if precision == "fp32":
        save_model(result.model, out)
    else:
        amax = None
        if data is not None:
            source = open_source(data, loaded.inputs, batch_size, preprocess)
            amax = measure_amax(loaded, CheckedSource(source, loaded.inputs))
        half = halve(result.model, amax)
        save_model(half.model, out)
        kept = half.kept
        if amax is None:
            console.warn(options.UNMEASURED)
    if json:
        nodes = [asdict(one) for one in result.nodes]
        console.print_json(
            {
                "model": str(out),
                "int8": result.in_int8,
                "ranges": asdict(migrated.report),
                "nodes": nodes,
                "high_precision": precision,
                "kept_in_fp32": [asdict(one) for one in kept],
            }
        )
        return
    _print_report(migrated.report, table)
    left = [node for node in result.nodes if not node.int8]
    if left:
        console.print_table(["left in float", "op", "why"], [[one.node, one.op_type, one.reason] for one in left])
    _print_rows(["stays in FP32", "op", "why"], [[one.node, one.op_type, one.reason] for one in kept])
    console.say(
        f"{out}: {result.in_int8} of {len(result.nodes)} candidate nodes run in INT8, the rest in {precision.upper()}"
    )


def _print_report(report: MigrationReport, table: Path) -> None:
    _print_rows(
        ["derived range of", "amax", "from", "rule"],
        [[one.name, f"{one.amax:.6g}", one.source, one.rule] for one in report.derived],
    )
    _print_rows(["in the table, not in the model", "nearest in the model"], _nearest(report.unknown))
    _print_rows(["needed, not in the table", "nearest in the table"], _nearest(report.missing))
    counts = {
        "derived": len(report.derived),
        "not in the model": len(report.unknown),
        "of unnamed layers, which cannot be matched": len(report.unnamed),
        "of constants or other types": len(report.not_activations),
        "without a usable scale": len(report.unusable),
        "needed but missing": len(report.missing),
    }
    console.say(
        f"{table}: {len(report.matched)} names matched"
        + "".join(f", {count} {what}" for what, count in counts.items() if count)
    )


def _nearest(names: tuple[Unmatched, ...]) -> list[list[str]]:
    return [[one.name, ", ".join(one.nearest)] for one in names]


def _print_rows(head: list[str], rows: list[list[str]]) -> None:
    if rows:
        console.print_table(head, rows[:_ROWS])
    if len(rows) > _ROWS:
        console.say(f"... and {len(rows) - _ROWS} more (--json has all)")
