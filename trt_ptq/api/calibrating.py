"""`calibrate` and `measure_sensitivity`: what needs only a float model and data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trt_ptq.api.inputs.metric_input import user_metric
from trt_ptq.api.inputs.model_input import ModelLike, opened_model
from trt_ptq.api.inputs.table_input import TableLike, matched_table
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.convergence import Convergence, Stability
from trt_ptq.calibration.devices import open_device
from trt_ptq.calibration.memory_planner import Passes, plan_calibration
from trt_ptq.calibrators.methods import METHODS, RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.choices import DeviceName, Nonfinite
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.checks.audit import Audit
from trt_ptq.data.checks.input_ranges import InputRanges
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.observation import observe
from trt_ptq.data.open import open_data
from trt_ptq.data.shard import ShardedSource
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import limited_memory
from trt_ptq.qdq.node_selection import select_nodes
from trt_ptq.sensitivity.measure import LayerSensitivity
from trt_ptq.sensitivity.measure import measure_sensitivity as _measure_sensitivity
from trt_ptq.types import BatchSource, ProgressCallback, no_progress

_logger = logging.getLogger(__name__)


def calibrate(
    model: ModelLike,
    data: Any,
    *,
    tensors: str | Sequence[str] = ("fused",),
    attention: bool = False,
    nonfinite: Nonfinite = "refuse",
    device: DeviceName = "cpu",
    memory_limit: int | str | None = None,
    until_stable: float | str | None = None,
    batch_size: int = 8,
    preprocess: Any = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    progress: ProgressCallback | None = None,
) -> Statistics:
    """Run a float model over calibration data and collect the statistics of its tensors.

    Every range method works from the statistics, without the data and the model: see `Statistics.table`. What is
    suspicious about the data is logged as a warning.

    Args:
        model: path of an ONNX model, an `onnx.ModelProto`, or a `torch.nn.Module` with `example_inputs`.
        data: representative inputs in any form; see `open_data`.
        tensors: "fused" (inputs of INT8 nodes), "all" (every float activation), or tensor names.
        attention: also measure the inputs of attention's MatMuls.
        nonfinite: NaN and infinity in activations: "refuse", or "skip" (count and report).
        device: "cpu" or "cuda".
        memory_limit: bytes, or text such as "4GB": stay below, by several passes over the data if need be.
        until_stable: end when no range of method "percentile" has moved by more than this fraction since half as many
            samples.
        batch_size: for data that does not define its batches.
        preprocess: for a folder of images: a function from a PIL image to the array of one sample.
        example_inputs: for a torch module: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        dynamic_shapes: for a torch module: the axes that may vary, as for `torch.onnx.export`; the first of each input
            unless given.
        progress: shows progress; see `quantize`.

    Returns:
        The statistics: the same bytes for the same data, whatever the batch size, order or number of threads.

    Raises:
        ModelError: the model cannot be read or run.
        DataError: a batch does not fit the model, or a tensor has NaN or infinity.
        UsageError: an argument is invalid; names it.
    """
    config = QuantizeConfig(
        tensors=tensors,
        attention=attention,
        nonfinite=nonfinite,
        device=device,
        memory_limit=memory_limit,
        until_stable=until_stable,
        batch_size=batch_size,
    )
    with opened_model(model, example_inputs, dynamic_shapes) as loaded:
        source = open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess)
        collected = collect(loaded, source, config, METHODS["percentile"], progress or no_progress)
    for warning in collected.findings:
        _logger.warning("%s", warning)
    return collected.statistics


@dataclass(frozen=True)
class Collected:
    """The `statistics` of a calibration, the `passes` that measured them, and whether the ranges are stable.

    `findings` are what is suspicious about the data, a sentence each.
    """

    statistics: Statistics
    passes: Passes
    stability: Stability | None
    findings: list[str]


def collect(
    model: Model,
    source: BatchSource,
    config: QuantizeConfig,
    monitored: RangeMethod,
    progress: ProgressCallback = no_progress,
    checkpoint: Checkpoint | None = None,
) -> Collected:
    """Calibrate a model with the batches of `source`.

    Args:
        model: the float model.
        source: the batches, which are validated here.
        config: what to measure, and where; nothing else of it is used.
        monitored: the method whose ranges must be stable, if `config.until_stable` is given.
        progress: shows progress over the batches.
        checkpoint: file to save progress to, and to resume from.

    Raises:
        DataError, StatisticsError, UsageError: see `plan_calibration` and `collect_statistics`.
        ModelError: see `check_loaded`.
    """
    device, audit = open_device(config.device), Audit()
    valid = ValidatedSource(source, model.inputs, allow_nonfinite=config.nonfinite == "skip")
    observed = observe(valid, audit)
    incomparable = check_loaded(model, valid)
    limit_bytes = None if config.memory_limit is None else int(config.memory_limit)
    convergence = None if config.until_stable is None else Convergence([monitored], float(config.until_stable))
    with limited_memory(limit_bytes):
        calibration_tensors, passes = plan_calibration(model, observed, config.tensors, config.attention, limit_bytes)
        statistics = collect_statistics(
            model,
            observed,
            calibration_tensors,
            config.nonfinite,
            progress,
            passes,
            device=device,
            checkpoint=checkpoint,
            convergence=convergence,
        )
    stability = convergence.stability() if convergence else None
    findings = incomparable + audit.findings(is_shard=isinstance(source, ShardedSource))
    if stability and not stability.stable:
        findings.append(str(stability))
    return Collected(statistics, passes, stability, findings)


def measure_sensitivity(
    model: ModelLike,
    data: Any,
    *,
    table: TableLike | None = None,
    evaluate: Evaluate | str | None = None,
    nodes_to_exclude: str | Sequence[str] = (),
    nodes_to_include: str | Sequence[str] = (),
    attention: bool = False,
    batch_size: int = 8,
    preprocess: Any = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    progress: ProgressCallback | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Measure what INT8 costs layer by layer: with one layer in INT8 only, and with all layers but one.

    Args:
        model: path of an ONNX model, an `onnx.ModelProto`, or a `torch.nn.Module` with `example_inputs`.
        data: a few representative inputs in any form; see `open_data`.
        table: the ranges: a `CalibrationTable` or the path of one. Unless given, `data` is calibrated with, by method
            "percentile".
        evaluate: your metric (see `quantize`), computed once per layer for the whole model.
        nodes_to_exclude: nodes that are not quantized; see `QuantizeConfig`.
        nodes_to_include: if given, only these nodes are quantized.
        attention: also quantize the MatMuls of attention.
        batch_size: for data that does not define its batches.
        preprocess: for a folder of images: a function from a PIL image to the array of one sample.
        example_inputs: for a torch module: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        dynamic_shapes: for a torch module: the axes that may vary, as for `torch.onnx.export`; the first of each input
            unless given.
        progress: shows progress; see `quantize`.

    Returns:
        The layers in graph order. Sort by `alone` to find the most sensitive ones.

    Raises:
        ModelError, TableError: the model or the table cannot be used.
        DataError: a batch does not fit the model.
        UsageError: an argument is invalid; names it.
    """
    config = QuantizeConfig(
        nodes_to_exclude=nodes_to_exclude,
        nodes_to_include=nodes_to_include,
        attention=attention,
        batch_size=batch_size,
    )
    metric = user_metric(evaluate)
    with opened_model(model, example_inputs, dynamic_shapes) as loaded:
        excluded = select_nodes(loaded.to_ir().graph, config.nodes_to_include, config.nodes_to_exclude)
        opened = open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess)
        input_ranges = InputRanges()
        source = observe(ValidatedSource(opened, loaded.inputs), input_ranges)
        if table is None:
            ranges = calibrate(loaded, source, attention=attention, progress=progress).table()
        else:
            ranges = matched_table(table, loaded).table
            for warning in check_loaded(loaded, source):
                _logger.warning("%s", warning)
        layers = _measure_sensitivity(
            loaded,
            ranges,
            source,
            attention=attention,
            nodes_to_exclude=excluded,
            metric=metric,
            progress=progress or no_progress,
        )
    for warning in metric.input_warnings(input_ranges, "`data`") if metric else ():
        _logger.warning("%s", warning)
    return layers
