"""`compare`: how close a model or an engine is to its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_ptq.api.inputs.metric_input import user_metric
from trt_ptq.api.inputs.model_input import ModelLike, is_torch_module, model_file
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.open import open_data
from trt_ptq.errors import ModelError, UsageError
from trt_ptq.evaluation.comparison import Comparison, compare_with_reference
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.evaluation.runners.layer_differences import layer_differences
from trt_ptq.evaluation.runners.runner import inputs_of, is_engine
from trt_ptq.types import ProgressCallback, TensorSpec, no_progress


def compare(
    reference: ModelLike,
    candidate: ModelLike,
    data: Any,
    *,
    evaluate: Evaluate | str | None = None,
    max_drop: float | str = 0.01,
    lower_is_better: str | Sequence[str] = (),
    batch_size: int = 8,
    preprocess: Any = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    layers: bool = False,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """Compare a quantized model or engine with its reference.

    ONNX models, quantized by any tool or not, run on ONNX Runtime's CPU; engines (.engine, .plan) run on the GPU.

    Args:
        reference: the float model: a path, an `onnx.ModelProto`, or a `torch.nn.Module` with `example_inputs`; or the
            path of an engine.
        candidate: the model or engine to compare with it; it must have the same inputs and outputs.
        data: inputs to run both on, in any form; see `open_data`.
        evaluate: your metric, see `quantize`; it runs ONNX models and engines alike. Without it, the verdict is on the
            fidelity of outputs.
        max_drop: accuracy threshold: largest relative loss of a metric, as "1%" or as a fraction below 0.1.
            Without a metric, the largest error of an output: 0.01 requires 20 dB SQNR, and of scores 99 % top-1
            agreement.
        lower_is_better: names of metrics whose lower values are better.
        batch_size: for data that does not define its batches.
        preprocess: for a folder of images: a function from a PIL image to the array of one sample.
        example_inputs: for torch modules: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        dynamic_shapes: for torch modules: the axes that may vary, as for `torch.onnx.export`; the first of each input
            unless given.
        layers: for an ONNX model and an engine that was built from it: also compare their inner tensors; see
            `Comparison.layers`.
        progress: shows progress; see `quantize`.

    Returns:
        The fidelity of each output, the metrics, and the verdict.

    Raises:
        ModelError, EngineError: a model or an engine cannot be loaded or run, or their outputs differ.
        DataError: a batch does not fit the model, or the metric fails.
        UsageError: an argument is invalid; names it.
    """
    config = QuantizeConfig(max_drop=max_drop, lower_is_better=lower_is_better, batch_size=batch_size)
    metric = user_metric(evaluate, config.lower_is_better)
    is_module = is_torch_module(candidate)
    export = (example_inputs, dynamic_shapes)
    nothing = (None, None)
    with (
        model_file(reference, *(nothing if is_module and not is_torch_module(reference) else export)) as first,
        model_file(candidate, *(export if is_module else nothing)) as second,
    ):
        if layers and (is_engine(first) or not is_engine(second)):
            raise UsageError("`layers` needs an ONNX model as the reference, and an engine built from it")
        inputs = [inputs_of(path) for path in (first, second)]
        _check_same_inputs(first, second, *inputs)
        source = open_data(data, inputs[0], batch_size=batch_size, preprocess=preprocess)
        validated, show = ValidatedSource(source, inputs[0]), progress or no_progress
        comparison = compare_with_reference(first, second, validated, metric, float(config.max_drop), show)
        return replace(comparison, layers=layer_differences(first, second, validated, show)) if layers else comparison


def _check_same_inputs(
    reference: Path, candidate: Path, expected: Sequence[TensorSpec], actual: Sequence[TensorSpec]
) -> None:
    """Check names and ranks; a candidate may be fixed to a shape, and an engine lacks inputs that nothing reads."""
    ranks = {spec.name: len(spec.shape) for spec in expected}
    if any(ranks.get(spec.name) != len(spec.shape) for spec in actual):
        takes = [", ".join(map(str, specs)) for specs in (actual, expected)]
        raise ModelError(
            f"{candidate} takes {takes[0]}, and {reference} takes {takes[1]}: compare a model with the one that it was "
            "made from"
        )
