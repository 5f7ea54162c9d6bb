"""trt-ptq qdq"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq.calibrators.files import check_writable
from trt_ptq.calibrators.table.store import load_table
from trt_ptq.cli import console, options
from trt_ptq.graph.model import load_model
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import save_model


def qdq(
    model: options.Model,
    table: Annotated[Path, typer.Option(help="TensorRT cache or .json table.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Q/DQ model to write.")] = Path("model.int8.onnx"),
    allow_other_model: options.AllowOtherModel = False,
    json: options.Json = False,
) -> None:
    """Make an explicit Q/DQ model for TensorRT 10, 11 and RTX from a float model and a table; no data needed.

    Example: trt-ptq qdq model.onnx --table calibration.json -o model.int8.onnx
    """
    loaded = load_model(model)
    ranges = load_table(table)
    if not allow_other_model:
        ranges.refuse_other_model(loaded.identity, str(table))
    check_writable(out)
    result = insert_qdq(loaded, ranges)
    save_model(result.model, out)
    left = [node for node in result.nodes if not node.int8]
    if json:
        console.print_json({"model": str(out), "int8": result.in_int8, "nodes": [asdict(one) for one in result.nodes]})
        return
    if left:
        console.print_table(["left in float", "op", "why"], [[one.node, one.op_type, one.reason] for one in left])
    console.say(f"{out}: {result.in_int8} of {len(result.nodes)} candidate nodes run in INT8")
