"""trt-ptq qdq"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.calibrators.errors import ModelError, UsageError
from trt_ptq.calibrators.files import check_writable
from trt_ptq.cli import console, options
from trt_ptq.cli.tables import read_table
from trt_ptq.engines.spec import ShapeProfile, parse_profiles
from trt_ptq.graph.macs import count_macs, share_in_int8
from trt_ptq.graph.migration import MigrationReport, Unmatched, migrate_table
from trt_ptq.graph.model import Model as LoadedModel
from trt_ptq.graph.model import load_model
from trt_ptq.graph.placement import NodePlan
from trt_ptq.graph.profiles import check_profiles
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import check_saveable, save_model

_ROWS = 20  # of each list, for people; --json has all


def qdq(
    model: options.Model,
    table: Annotated[
        Path, typer.Option(help="TensorRT cache, .json table, or ONNX Runtime's .flatbuffers.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Q/DQ model to write.")] = Path("model.int8.onnx"),
    explain: Annotated[bool, typer.Option("--explain", help="List all candidate nodes: INT8 or not, and why.")] = False,
    shape: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Count multiply-accumulates at this shape of an input, e.g. x=1x3x48x320 (repeat); needed where more "
            "than the first axis is open.",
            show_default=False,
        ),
    ] = None,
    attention: options.Attention = False,
    allow_other_model: options.AllowOtherModel = False,
    json: options.Json = False,
) -> None:
    """Make an explicit Q/DQ model for TensorRT 10, 11 and RTX from a float model and a table; no data needed.

    Tells which names of the table are in the model, which ranges were derived from others, and how much runs in INT8.

    Example: trt-ptq qdq model.onnx --table calibration.cache -o model.int8.onnx
    """
    check_writable(out, model, table)
    loaded = load_model(model)
    check_saveable(out, loaded)
    profiles = parse_profiles(shape or [])
    check_profiles(profiles, loaded)
    ranges = read_table(table)
    if not allow_other_model:
        ranges.refuse_other_model(loaded.identity, str(table))
    migrated = migrate_table(loaded.to_ir().graph, ranges, str(table))
    result = insert_qdq(loaded, migrated.table, attention=attention)
    save_model(result.model, out)
    macs, unknown = _count_macs(loaded, profiles)
    share = None if macs is None else share_in_int8(result.plan, macs)
    if json:
        nodes = [{**asdict(one), "macs": (macs or {}).get(one.node)} for one in result.nodes]
        document = {"model": str(out), "int8": result.in_int8, "int8_share_of_macs": share, "nodes": nodes}
        alone = [asdict(one) for one in result.plan.left_alone]
        console.print_json({**document, "left_alone": alone, "ranges": asdict(migrated.report)})
        return
    _print_report(migrated.report, table)
    if explain:
        console.print_table(["node", "op", "runs in", "MACs", "why"], [_row(one, macs or {}) for one in result.nodes])
    elif result.in_int8 < len(result.nodes):
        left = [[one.node, one.op_type, one.reason] for one in result.nodes if not one.int8]
        console.print_table(["left in float", "op", "why"], left)
    for one in result.plan.left_alone:
        console.warn(f"{one.op_type} {one.node!r} is left alone: {one.reason}")
    console.say(
        f"{out}: {result.in_int8} of {len(result.nodes)} candidate nodes run in INT8, "
        + (f"share of the multiply-accumulates unknown: {unknown}" if share is None else f"{share:.1%} of the MACs")
    )


def _count_macs(model: LoadedModel, profiles: Mapping[str, ShapeProfile]) -> tuple[dict[str, int] | None, str]:
    """Multiply-accumulates by node, or None and why they cannot be counted."""
    try:
        return count_macs(model, {name: profile.optimum for name, profile in profiles.items()}), ""
    except UsageError as error:
        return None, f"{error}, with --shape"
    except ModelError as error:
        return None, str(error)


def _row(node: NodePlan, macs: Mapping[str, int]) -> list[str]:
    count = f"{macs[node.node]:,}" if node.node in macs else ""
    return [node.node, node.op_type, "INT8" if node.int8 else "float", count, node.reason]


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
