"""Which layers cost most in INT8."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from trt_ptq.accuracy.compare import compare_models
from trt_ptq.accuracy.fidelity import worst_output
from trt_ptq.calibrators.batches import BatchSource
from trt_ptq.calibrators.table.table import CalibrationTable
from trt_ptq.graph.model import Model
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import save_model


def rank_layers(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    attention: bool = False,
    keep_float: tuple[str, ...] = (),
) -> list[str]:
    """The layers in INT8 by the SQNR of the worst output with only that one in INT8, most sensitive first."""
    plan = insert_qdq(model, table, keep_float, attention).plan
    own = {one.node for one in plan.inputs if one.axis is not None}
    names = [one.node for one in plan.nodes if one.int8 and (one.node in own or one.op_type in ("MatMul", "Gemm"))]
    found = {}
    with tempfile.TemporaryDirectory(prefix="trt-ptq-") as folder:
        path = Path(folder) / "one.onnx"
        for name in names:
            others = [one.node for one in plan.nodes if one.node != name]
            save_model(insert_qdq(model, table, others, attention).model, path)
            worst = worst_output(compare_models(model.path, [path], source)[0].outputs)
            found[name] = math.inf if worst is None or math.isnan(worst.sqnr_db) else worst.sqnr_db
    return sorted(names, key=found.__getitem__)
