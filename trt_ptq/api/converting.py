"""`quantize_model` and `lint_model`: Q/DQ models."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from trt_ptq.api.apply_table import QuantizedModel, quantize_by_table
from trt_ptq.api.inputs.model_input import ModelLike, model_file, opened_model
from trt_ptq.api.inputs.table_input import TableLike, matched_table
from trt_ptq.calibration.measurements.magnitudes import measure_amax
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.choices import HighPrecision, Target
from trt_ptq.config import RTX_NEEDS_FP16, QuantizeConfig
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.open import open_data
from trt_ptq.errors import UsageError
from trt_ptq.lint.finding import Finding
from trt_ptq.lint.linter import lint_model as _lint_model
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.node_selection import select_nodes
from trt_ptq.report.warnings import mask_warnings, per_channel_warnings

_logger = logging.getLogger(__name__)


def quantize_model(
    model: ModelLike,
    table: TableLike,
    *,
    nodes_to_exclude: str | Sequence[str] = (),
    nodes_to_include: str | Sequence[str] = (),
    attention: bool = False,
    high_precision: HighPrecision | None = None,
    target: Target | None = None,
    data: Any = None,
    batch_size: int = 8,
    preprocess: Any = None,
    allow_other_model: bool = False,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
) -> QuantizedModel:
    """Convert a float model to an explicit Q/DQ model by a calibration table: int8, symmetric, per-channel weights.

    The calibration.json of `quantize` also records which nodes are excluded and what runs around INT8: with it, the
    result is the model that `quantize` verified.

    Args:
        model: path of an ONNX model, an `onnx.ModelProto`, or a `torch.nn.Module` with `example_inputs`.
        table: a `CalibrationTable`, or the path of one, such as a TensorRT calibration cache.
        nodes_to_exclude: nodes that are not quantized, beside those that the table excludes; see `QuantizeConfig`.
        nodes_to_include: if given, only these nodes are quantized.
        attention: also quantize the MatMuls of attention, over sequences of up to 512.
        high_precision: what runs around INT8: "fp32", or "fp16" (with FP32 where float16 overflows on `data`). Unless
            given, that of the table; "fp32" if the table does not say.
        target: the builder that the model is meant for: "trt" (TensorRT) or "rtx" (TensorRT for RTX, with "fp16").
            Unless given, that of the table; "trt" if the table does not say.
        data: for "fp16": a few representative inputs in any form; see `open_data`. Without them, only constants are
            checked against float16's range.
        batch_size: for data that does not define its batches.
        preprocess: for a folder of images: a function from a PIL image to the array of one sample.
        allow_other_model: accept a table that was made for another model.
        example_inputs: for a torch module: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        dynamic_shapes: for a torch module: the axes that may vary, as for `torch.onnx.export`; the first of each input
            unless given.

    Returns:
        The model; write it with `save`. Its `nodes` say what runs in INT8, and why not; its `ranges`, which names of
        the table are in the model.

    Raises:
        ModelError: the model cannot be read, has nothing to quantize, or does not compute what its file does.
        TableError: the table cannot be read, was made for another model, or has no range that is needed.
        UsageError: an argument is invalid; names it.
    """
    config = QuantizeConfig(
        nodes_to_exclude=nodes_to_exclude,
        nodes_to_include=nodes_to_include,
        attention=attention,
        high_precision=high_precision or "fp32",
        batch_size=batch_size,
    )
    with ExitStack() as stack:
        loaded = stack.enter_context(opened_model(model, example_inputs, dynamic_shapes))
        matched = matched_table(table, loaded, allow_other_model=allow_other_model)
        excluded = select_nodes(loaded.to_ir().graph, config.nodes_to_include, config.nodes_to_exclude)
        recipe = matched.table.recipe
        precision = high_precision or (recipe.high_precision if recipe else "fp32")
        if target == "rtx" and precision == "fp32":
            raise UsageError(RTX_NEEDS_FP16)
        if data is not None and precision == "fp32":
            raise UsageError("`data` shows what float16 can hold: omit it, or use `high_precision=fp16`")
        amax = None if data is None else _magnitudes(loaded, data, batch_size, preprocess)
        quantized = quantize_by_table(loaded, matched, excluded, attention, precision, amax, target)
        for warning in (*mask_warnings(quantized.clamped_masks), *per_channel_warnings(quantized.per_channel)):
            _logger.warning(warning)
        if not quantized.measured:
            _logger.warning(
                "no activations were measured, so a value beyond float16's range would overflow: pass `data`, or use "
                "`high_precision=fp32`"
            )
        if loaded.external.files:  # the result reads its weights from there when it is saved
            weakref.finalize(quantized.model, stack.pop_all().close)
    return quantized


def lint_model(model: ModelLike, statistics: Statistics | str | os.PathLike[str] | None = None) -> list[Finding]:
    """Find what TensorRT refuses, gets wrong or runs slowly in a Q/DQ model of any tool.

    Args:
        model: path of the quantized ONNX model, or an `onnx.ModelProto`.
        statistics: statistics of its float model, or the path of them: ranges are then compared with the data.

    Returns:
        The findings, rule by rule, each in graph order.

    Raises:
        ModelError: the model cannot be read, or nothing in it is quantized.
        StatisticsError: the statistics have none of the tensors that the model quantizes.
    """
    if isinstance(statistics, (str, os.PathLike)):
        statistics = load_statistics(statistics)
    with model_file(model) as path:
        return _lint_model(path, statistics)


def _magnitudes(model: Model, data: Any, batch_size: int, preprocess: Any) -> dict[str, float]:
    opened = open_data(data, model.inputs, batch_size=batch_size, preprocess=preprocess)
    source = ValidatedSource(opened, model.inputs)
    for warning in check_loaded(model, source):
        _logger.warning("%s", warning)
    return measure_amax(model, source)
