"""Linting a model file: reading it, and applying all rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx import shape_inference
from onnx_ir.passes import common as passes

from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.errors import ModelError, StatisticsError
from trt_ptq.lint.finding import Finding, Rule
from trt_ptq.lint.quantized_graph import QuantizedGraph
from trt_ptq.lint.rules import activation_ranges, encoding, fusion, granularity, operands, pairs, precision, scales
from trt_ptq.onnx_io.load import read_proto
from trt_ptq.qdq.read_ranges import float_name

RULES: tuple[Rule, ...] = (
    *encoding.RULES,
    *scales.RULES,
    *granularity.RULES,
    *pairs.RULES,
    *operands.RULES,
    *fusion.RULES,
    *precision.RULES,
    *activation_ranges.RULES,
)


def lint_model(path: Path, statistics: Statistics | None = None) -> list[Finding]:
    """Findings in the Q/DQ model at `path`, of any tool: rule by rule, each in graph order.

    `statistics` are of the float model it was made from: ranges are then compared with what was measured.

    Raises:
        ModelError: see `read_proto`; or nothing in the model is quantized.
        StatisticsError: the statistics have none of the tensors that the model quantizes.
    """
    proto = shape_inference.infer_shapes(read_proto(path))
    model = ir.from_proto(proto)
    if model.functions:
        model = passes.InlinePass()(model).model
    ir.external_data.set_base_dir(model.graph, path.parent)
    graph = QuantizedGraph(model.graph, model.graph.opset_imports.get("", 0))
    if not graph.quantizers and not any(encoding.integer_operators(graph)) and not any(encoding.low_precision(graph)):
        raise ModelError(f"{path}: nothing in it is quantized: give the Q/DQ model (trt-ptq qdq makes one)")
    if statistics is not None:
        graph = QuantizedGraph(graph.graph, graph.opset, _measured(graph, statistics, path))
    return [finding for rule in RULES for finding in rule.findings(graph)]


def _measured(graph: QuantizedGraph, statistics: Statistics, path: Path) -> Mapping[str, float]:
    """Largest magnitude by tensor name."""
    measured = {name: tensor.amax for name, tensor in statistics.tensors.items()}
    measured |= {name: measured[source] for name, source in statistics.shares_range.items() if source in measured}
    names = [float_name(one.node) for one in graph.quantizers if one.quantizes and not one.on_constant]
    if names and not measured.keys() & set(names):
        raise StatisticsError(
            f"the statistics have none of the tensors that {path} quantizes ({names[0]!r}, for one): measure the float "
            "model that it was made from (trt-ptq calibrate)"
        )
    return measured
