"""trt-ptq qdq"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq._internal.files import check_writable
from trt_ptq.analysis.macs import count_macs
from trt_ptq.calibration.measurements.magnitudes import measure_amax
from trt_ptq.cli import console, options
from trt_ptq.cli.parse import parse_high_precision
from trt_ptq.cli.read_table import read_table
from trt_ptq.data.open import open_data
from trt_ptq.data.shape_profiles import check_profiles
from trt_ptq.data.user_function import read_from
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.errors import ModelError, UsageError
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.onnx_io.load import Model as LoadedModel
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import check_saveable, save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.match_table import MatchReport, Unmatched, match_table
from trt_ptq.qdq.plan import NodePlan, int8_fraction
from trt_ptq.types import ShapeProfile

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

    Tells which names of the table are in the model, which ranges were derived from others, and how much runs in INT8.

    The ranges need no data. To have FP16 beside INT8 rather than FP32, give some with --data.

    Example: trt-ptq qdq model.onnx --table calibration.cache -o model.int8.onnx
    """
    precision = parse_high_precision(high_precision or ("fp16" if data else "fp32"))
    check_writable(out, model, table, *read_from(data))
    loaded = load_model(model)
    check_saveable(out, loaded)
    profiles = parse_profiles(shape or [])
    check_profiles(profiles, loaded.inputs)
    ranges = read_table(table)
    if not allow_other_model:
        ranges.check_model(loaded.identity, str(table))
    matched_table = match_table(loaded.to_ir().graph, ranges, str(table))
    result = insert_qdq(loaded, matched_table.table, attention=attention)
    kept: tuple[Fp32Node, ...] = ()
    if precision == "fp32":
        save_model(result.model, out)
    else:
        amax = None
        if data is not None:
            source = open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess)
            amax = measure_amax(loaded, ValidatedSource(source, loaded.inputs))
        converted = convert_to_float16(result.model, amax)
        save_model(converted.model, out)
        kept = converted.fp32_nodes
        if amax is None:
            console.warn(options.UNMEASURED)
    macs, unknown = _count_macs(loaded, profiles)
    share = None if macs is None else int8_fraction(result.plan, macs)
    if json:
        console.print_json(
            {
                "model": str(out),
                "num_int8_nodes": result.num_int8_nodes,
                "int8_fraction_of_macs": share,
                "nodes": [{**asdict(one), "macs": (macs or {}).get(one.output)} for one in result.nodes],
                "unsupported": [asdict(one) for one in result.plan.unsupported],
                "ranges": asdict(matched_table.report),
                "high_precision": precision,
                "fp32_nodes": [asdict(one) for one in kept],
            }
        )
        return
    _print_report(matched_table.report, table)
    if explain:
        console.print_table(["node", "op", "runs in", "MACs", "why"], [_row(one, macs or {}) for one in result.nodes])
    elif result.num_int8_nodes < len(result.nodes):
        left = [[one.output, one.op_type, one.reason] for one in result.nodes if not one.is_int8]
        console.print_table(["left in float", "op", "why"], left)
    _print_rows(["stays in FP32", "op", "why"], [[one.output, one.op_type, one.reason] for one in kept])
    for one in result.plan.unsupported:
        console.warn(f"{one.op_type} {one.output!r} is left alone: {one.reason}")
    console.say(
        f"{out}: {result.num_int8_nodes} of {len(result.nodes)} candidate nodes run in INT8, "
        f"the rest in {precision.upper()}; "
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
    count = f"{macs[node.output]:,}" if node.output in macs else ""
    return [node.output, node.op_type, "INT8" if node.is_int8 else "float", count, node.reason]


def _print_report(report: MatchReport, table: Path) -> None:
    _print_rows(
        ["derived range of", "amax", "from", "rule"],
        [[one.name, f"{one.amax:.6g}", one.source, one.rule] for one in report.inferred],
    )
    _print_rows(["in the table, not in the model", "nearest in the model"], _nearest(report.unknown))
    _print_rows(["needed, not in the table", "nearest in the table"], _nearest(report.missing))
    counts = {
        "derived": len(report.inferred),
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
    return [[one.name, ", ".join(one.similar)] for one in names]


def _print_rows(head: list[str], rows: list[list[str]]) -> None:
    if rows:
        console.print_table(head, rows[:_ROWS])
    if len(rows) > _ROWS:
        console.say(f"... and {len(rows) - _ROWS} more (--json has all)")
