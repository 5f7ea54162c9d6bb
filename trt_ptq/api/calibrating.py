"""`calibrate` and `measure_sensitivity`: what needs only a float model and data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from trt_ptq.api.metric_input import user_metric
from trt_ptq.api.model_input import ModelLike, opened_model
from trt_ptq.api.table_input import TableLike, matched_table
from trt_ptq.calibration.calibration_pass import Nonfinite
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.convergence import Convergence
from trt_ptq.calibration.devices import open_device
from trt_ptq.calibration.memory_planner import Passes, plan_passes
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.config import DeviceName, QuantizeConfig
from trt_ptq.data.audit import Audit
from trt_ptq.data.observation import observe
from trt_ptq.data.open import open_data
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.onnx_io.load import Model
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
    with opened_model(model, example_inputs) as loaded:
        audit = Audit()
        source = observe(_validated(loaded, data, config, preprocess), audit)
        calibration_tensors = select_calibration_tensors(loaded, tuple(config.tensors), attention)
        passes: Passes = (calibration_tensors.tensors,)
        if config.memory_limit is not None:
            passes = plan_passes(loaded, calibration_tensors, source, int(config.memory_limit))
        convergence = None
        if config.until_stable is not None:
            convergence = Convergence((METHODS["percentile"],), float(config.until_stable))
        statistics = collect_statistics(
            loaded,
            source,
            calibration_tensors,
            nonfinite,
            progress or no_progress,
            passes,
            device=open_device(device),
            convergence=convergence,
        )
    stability = convergence.stability() if convergence else None
    for warning in audit.findings() + ([str(stability)] if stability and not stability.stable else []):
        _logger.warning("%s", warning)
    return statistics


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
    with opened_model(model, example_inputs) as loaded:
        excluded = select_nodes(loaded.to_ir().graph, config.nodes_to_include, config.nodes_to_exclude)
        source = _validated(loaded, data, config, preprocess)
        if table is None:
            ranges = calibrate(loaded, source, attention=attention, progress=progress).table()
        else:
            ranges = matched_table(table, loaded).table
        return _measure_sensitivity(
            loaded,
            ranges,
            source,
            attention=attention,
            nodes_to_exclude=excluded,
            metric=user_metric(evaluate),
            progress=progress or no_progress,
        )


def _validated(model: Model, data: Any, config: QuantizeConfig, preprocess: Any) -> BatchSource:
    source = open_data(data, model.inputs, batch_size=config.batch_size, preprocess=preprocess)
    return ValidatedSource(source, model.inputs, allow_nonfinite=config.nonfinite == "skip")
