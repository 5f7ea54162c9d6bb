"""trt-ptq qdq: a Q/DQ model from a float model and a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq import choices
from trt_ptq._internal.files import check_writable
from trt_ptq.analysis.macs import count_macs
from trt_ptq.api.converting import quantize_model
from trt_ptq.cli import console, options
from trt_ptq.data.shape_profiles import match_profiles
from trt_ptq.data.user_function import read_from
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.errors import ModelError, UsageError
from trt_ptq.onnx_io.load import Model as LoadedModel
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import check_saveable
from trt_ptq.qdq.plan import NodePlan, int8_fraction
from trt_ptq.qdq.ranges.match_table import MatchReport, Unmatched
from trt_ptq.types import ShapeProfile

_ROWS = 20  # of each list; --json lists all


def qdq(
    model: options.Model,
    table: Annotated[
        Path,
        typer.Option(
            help="Calibration table: a TensorRT cache, .json, or ONNX Runtime's .flatbuffers.",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ],
    allow_other_model: options.AllowOtherModel = False,
    attention: options.Attention = False,
    exclude: options.Exclude = None,
    include: options.Include = None,
    high_precision: Annotated[
        Optional[choices.HighPrecision],
        typer.Option(
            help="Precision of the nodes that are not INT8. Default: fp16 with --data, which shows where float16 would "
            "overflow; else that of the table's run, or fp32.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    target: options.Target = None,
    data: Annotated[
        Optional[str],
        typer.Option(
            help="A few representative inputs (see `trt-ptq quantize`), to keep nodes in FP32 where float16 would "
            "overflow.",
            rich_help_panel=options.DATA,
            show_default=False,
        ),
    ] = None,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    shape: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME=SHAPE",
            help="Shape of an input at which to count MACs, such as x=1x3x48x320 (repeatable). Needed if axes other "
            "than the batch axis are dynamic.",
            rich_help_panel=options.OUTPUT,
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="List all quantizable nodes: INT8 or not, and why.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Q/DQ model to write.", rich_help_panel=options.OUTPUT)
    ] = Path("model.int8.onnx"),
    json: options.Json = False,
) -> None:
    """Convert a float model and a calibration table to an explicit Q/DQ model, for TensorRT 10, 11 and RTX.

    With the calibration.json of `trt-ptq quantize`, the result is the model that was verified there: the table records
    which nodes are excluded, and what runs in FP16.

    Reports which names of the table are in the model, which ranges were derived from others, and how much of the model
    runs in INT8.

    Example: trt-ptq qdq model.onnx --table calibration.cache -o model.int8.onnx
    """
    check_writable(out, model, table, *read_from(data, preprocess))
    loaded = load_model(model)
    check_saveable(out, loaded)
    profiles = match_profiles(parse_profiles(shape or []), loaded.inputs)
    result = quantize_model(
        loaded,
        table,
        nodes_to_exclude=exclude or (),
        nodes_to_include=include or (),
        attention=attention,
        target=target,
        high_precision=high_precision or ("fp16" if data else None),
        data=data,
        batch_size=batch_size,
        preprocess=preprocess,
        allow_other_model=allow_other_model,
    )
    result.save(out)
    macs, unknown = _count_macs(loaded, profiles)
    fraction = None if macs is None else int8_fraction(result.plan, macs)
    if json:
        console.print_json(
            {
                "model": str(out),
                "num_int8_nodes": result.num_int8_nodes,
                "int8_fraction_of_macs": fraction,
                "nodes": [{**asdict(node), "macs": (macs or {}).get(node.output)} for node in result.nodes],
                "unsupported": [asdict(node) for node in result.plan.unsupported],
                "ranges": asdict(result.ranges),
                "high_precision": result.high_precision,
                "fp32_nodes": [asdict(node) for node in result.fp32_nodes],
            }
        )
        return
    _print_report(result.ranges, table)
    if explain:
        console.print_table(
            ["node", "op", "runs in", "MACs", "reason"], [_row(node, macs or {}) for node in result.nodes]
        )
    elif result.num_int8_nodes < len(result.nodes):
        excluded_rows = [[node.output, node.op_type, node.reason] for node in result.nodes if not node.is_int8]
        console.print_table(["not quantized", "op", "reason"], excluded_rows)
    fp32_rows = [[node.output, node.op_type, node.reason] for node in result.fp32_nodes]
    _print_rows(["stays in FP32", "op", "reason"], fp32_rows)
    for node in result.plan.unsupported:
        console.warn(f"{node.op_type} {node.output!r} is not quantized: {node.reason}")
    console.say(
        f"{out}: {result.num_int8_nodes} of {len(result.nodes)} quantizable nodes run in INT8, "
        f"the rest in {result.high_precision.upper()}; "
        + (f"fraction of the MACs unknown: {unknown}" if fraction is None else f"{fraction:.1%} of the MACs")
    )


def _count_macs(model: LoadedModel, profiles: Mapping[str, ShapeProfile]) -> tuple[dict[str, int] | None, str]:
    """Return the MACs by node, or None and why they cannot be counted."""
    try:
        return count_macs(model, {name: profile.optimum for name, profile in profiles.items()}), ""
    except UsageError as error:
        return None, f"{error}, with --shape"
    except ModelError as error:
        return None, str(error)


def _row(node: NodePlan, macs: Mapping[str, int]) -> list[str]:
    count = f"{macs[node.output]:,}" if node.output in macs else ""
    runs_in = "INT8" if node.is_int8 else "float, INT8 weight" if node.weight_only else "float"
    return [node.output, node.op_type, runs_in, count, node.reason]


def _print_report(report: MatchReport, table: Path) -> None:
    _print_rows(
        ["derived range", "amax", "from", "rule"],
        [[inferred.name, f"{inferred.amax:.6g}", inferred.source, inferred.rule] for inferred in report.inferred],
    )
    _print_rows(["in the table, not in the model", "similar names in the model"], _similar(report.unknown))
    _print_rows(["needed, not in the table", "similar names in the table"], _similar(report.missing))
    counts = {
        "derived": len(report.inferred),
        "not in the model": len(report.unknown),
        "for unnamed layers, which cannot be matched": len(report.unnamed),
        "for constants or other types": len(report.not_activations),
        "without a usable scale": len(report.unusable),
        "needed but missing": len(report.missing),
    }
    console.say(
        f"{table}: {len(report.matched)} names matched"
        + "".join(f", {count} {what}" for what, count in counts.items() if count)
    )


def _similar(names: tuple[Unmatched, ...]) -> list[list[str]]:
    return [[unmatched.name, ", ".join(unmatched.similar)] for unmatched in names]


def _print_rows(head: list[str], rows: list[list[str]]) -> None:
    if rows:
        console.print_table(head, rows[:_ROWS])
    if len(rows) > _ROWS:
        console.say(f"... and {len(rows) - _ROWS} more (--json lists all)")
