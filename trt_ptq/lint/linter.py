"""Lint a model file: read it and apply all rules."""

from __future__ import annotations

import os
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
from trt_ptq.qdq.float_names import float_name

FAMILIES: Mapping[str, tuple[Rule, ...]] = {
    "Integer types and zero points": encoding.RULES,
    "Scales": scales.RULES,
    "Granularity": granularity.RULES,
    "Pairs of QuantizeLinear and DequantizeLinear": pairs.RULES,
    "Operands": operands.RULES,
    "Fusion": fusion.RULES,
    "Precision": precision.RULES,
    "Activation ranges": activation_ranges.RULES,
}
RULES: tuple[Rule, ...] = tuple(rule for rules in FAMILIES.values() for rule in rules)


def lint_model(path: str | os.PathLike[str], statistics: Statistics | None = None) -> list[Finding]:
    """Find what TensorRT refuses, gets wrong or runs slowly in a Q/DQ model of any tool.

    Args:
        path: The Q/DQ model.
        statistics: Statistics of the float model; the ranges of activations are then compared with the data.

    Returns:
        The findings in the order of `RULES`; those of one rule in graph order.

    Raises:
        ModelError: The file cannot be read (see `read_proto`), or nothing in the model is quantized.
        StatisticsError: The statistics have none of the tensors that the model quantizes.
    """
    path = Path(path)
    proto = shape_inference.infer_shapes(read_proto(path))
    model = ir.from_proto(proto)
    if model.functions:
        model = passes.InlinePass()(model).model
    ir.external_data.set_base_dir(model.graph, path.parent)
    graph = QuantizedGraph(model.graph, model.graph.opset_imports.get("", 0))
    if not graph.quantizers and not any(encoding.integer_operators(graph)) and not any(encoding.low_precision(graph)):
        raise ModelError(f"{path}: nothing in it is quantized: pass a Q/DQ model (trt-ptq qdq creates one)")
    if statistics is not None:
        graph = QuantizedGraph(graph.graph, graph.opset, _measured_amax(graph, statistics, path))
    return [finding for rule in RULES for finding in rule.findings(graph)]


def _measured_amax(graph: QuantizedGraph, statistics: Statistics, path: Path) -> Mapping[str, float]:
    """The largest measured magnitude by tensor name."""
    measured = {name: tensor.amax for name, tensor in statistics.tensors.items()}
    measured |= {name: measured[source] for name, source in statistics.shares_range.items() if source in measured}
    activations = [quantizer for quantizer in graph.quantizers if quantizer.is_quantize and not quantizer.on_constant]
    names = [float_name(quantizer.node) for quantizer in activations]
    if names and not measured.keys() & set(names):
        raise StatisticsError(
            f"the statistics have none of the tensors that {path} quantizes (for example {names[0]!r}): collect "
            "statistics of the float model that it was made from (trt-ptq calibrate)"
        )
    return measured
