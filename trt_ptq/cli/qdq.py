"""trt-ptq qdq"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq.calibrators.files import check_writable
from trt_ptq.cli import console, options
from trt_ptq.cli.tables import read_table
from trt_ptq.graph.migration import MigrationReport, Unmatched, migrate_table
from trt_ptq.graph.model import load_model
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import check_saveable, save_model

_ROWS = 20  # of each list, for people; --json has all


def qdq(
    model: options.Model,
    table: Annotated[
        Path, typer.Option(help="TensorRT cache, .json table, or ONNX Runtime's .flatbuffers.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Q/DQ model to write.")] = Path("model.int8.onnx"),
    allow_other_model: options.AllowOtherModel = False,
    json: options.Json = False,
) -> None:
    """Make an explicit Q/DQ model for TensorRT 10, 11 and RTX from a float model and a table; no data needed.

    Tells which names of the table are in the model, and which ranges were derived from others.

    Example: trt-ptq qdq model.onnx --table calibration.cache -o model.int8.onnx
    """
    check_writable(out, model, table)
    loaded = load_model(model)
    check_saveable(out, loaded)
    ranges = read_table(table)
    if not allow_other_model:
        ranges.refuse_other_model(loaded.identity, str(table))
    migrated = migrate_table(loaded.to_ir().graph, ranges, str(table))
    result = insert_qdq(loaded, migrated.table)
    save_model(result.model, out)
    if json:
        nodes = [asdict(one) for one in result.nodes]
        console.print_json(
            {"model": str(out), "int8": result.in_int8, "ranges": asdict(migrated.report), "nodes": nodes}
        )
        return
    _print_report(migrated.report, table)
    left = [node for node in result.nodes if not node.int8]
    if left:
        console.print_table(["left in float", "op", "why"], [[one.node, one.op_type, one.reason] for one in left])
    console.say(f"{out}: {result.in_int8} of {len(result.nodes)} candidate nodes run in INT8")


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
