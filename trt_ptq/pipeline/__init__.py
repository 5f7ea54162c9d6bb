"""`quantize`: from a float model and data to a verified INT8 model and engine. The place to read first."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from trt_ptq._internal.locks import locked_folder
from trt_ptq._internal.temporary import remove_abandoned, temporary_folder
from trt_ptq.api.inputs.language_input import check_text_task
from trt_ptq.api.inputs.model_input import ModelLike, describe_model, is_in_memory, opened_model
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import UsageError
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.onnx_io.ort_session import limited_memory
from trt_ptq.output import no_empty_folder
from trt_ptq.pipeline.calibration_step import calibrate
from trt_ptq.pipeline.engine_step import build
from trt_ptq.pipeline.evaluation_step import evaluate_engines, evaluate_models
from trt_ptq.pipeline.export_step import export
from trt_ptq.pipeline.job import Arguments, resolve
from trt_ptq.pipeline.kept_statistics import StatisticsLike
from trt_ptq.pipeline.placement_step import place
from trt_ptq.pipeline.quantize_result import QuantizeResult
from trt_ptq.pipeline.report_step import report_engines, report_models
from trt_ptq.pipeline.starting_recipe import check_recipe
from trt_ptq.pipeline.tuning_step import candidate_builder, tune_recipe
from trt_ptq.types import ProgressCallback, no_progress

__all__ = ["QuantizeResult", "quantize"]

_logger = logging.getLogger(__name__)


def quantize(
    model: ModelLike,
    data: Any,
    *,
    evaluate: Evaluate | str | None = None,
    test_data: Any = None,
    tokenizer: Any = None,
    stats: StatisticsLike | None = None,
    output_dir: str | os.PathLike[str] = "int8",
    config: QuantizeConfig | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    preprocess: Any = None,
    progress: ProgressCallback | None = None,
) -> QuantizeResult:
    """Quantize a float model to INT8 within an accuracy threshold, and build its engines.

    Args:
        model: path of an ONNX model, an `onnx.ModelProto`, or a `torch.nn.Module` with `example_inputs`. A causal
            language model may also be a Hugging Face folder, or the Hugging Face model itself, with `tokenizer`.
        data: representative inputs to calibrate with: a folder, a file, "file.py:function", a list or generator of
            feed dicts or arrays, a callable that returns one, a torch DataLoader, a Hugging Face dataset, or a
            `BatchSource`. For a causal language model it is text: a .txt, .jsonl or .parquet file, a folder of .txt
            files, a Hugging Face dataset or a list.
        evaluate: your metric: a function, or "file.py:function". It is called as `evaluate(run)`, where
            `run(feeds) -> outputs` runs a model, or as `evaluate(run, split)`, where the split is "select" while
            candidates are compared and "test" for the verdict. It returns a dict of metrics, name to number; wrap those
            whose lower values are better in `Lower`, or name them in `config.lower_is_better`. It may instead yield the
            score of each sample, in random order, or those of a batch: their mean is the metric, and a candidate that
            loses too much is given up after some of the samples. Without a metric, the outputs are compared with those
            of FP32; of a causal language model, the perplexity on held-out text.
        test_data: inputs to compare on, in the forms of `data`; without it, one batch in five of `data` is held out.
        tokenizer: of a causal language model: its Hugging Face tokenizer, or the folder that has it; unless given, the
            folder of the model.
        stats: statistics of this model, or the path of them, to start from instead of calibrating: those of
            `calibrate`, or stats.safetensors of a run that was interrupted. For an unbiased verdict, they must come
            from the calibration part of `data`, or `test_data` must be given.
        output_dir: folder for all results; created if need be.
        config: how to quantize; see `QuantizeConfig`.
        example_inputs: for a torch module: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        dynamic_shapes: for a torch module: the axes that may vary, as for `torch.onnx.export`; the first of each input
            unless given.
        preprocess: for a folder of images: a function from a PIL image to the array of one sample, or
            "file.py:function".
        progress: shows progress; called with (items, description, number of items or None), and yields the items. For
            Rich, it is `rich.progress.track`; for tqdm:

                def progress(items, description, total):
                    return tqdm(items, desc=description, total=total)

    Returns:
        What was written, the metrics by precision, and the verdict.

    Raises:
        TrtPtqError: bad input, before or while it is used; what was finished by then stays in `output_dir`. A builder
            failure is no exception: see `QuantizeResult.engine_error`.
    """
    if config is not None and not isinstance(config, QuantizeConfig):
        raise UsageError(f"`config` must be a QuantizeConfig, not {type(config).__name__}")
    config = config or QuantizeConfig()
    check_recipe(config)
    check_text_task(model, tokenizer, config, example_inputs, (data, test_data))
    with (
        opened_model(model, example_inputs, dynamic_shapes) as loaded,
        temporary_folder() as scratch,
        no_empty_folder(Path(output_dir)),
    ):
        arguments = Arguments(
            model=model,
            model_name=describe_model(model),
            data=data,
            evaluate=evaluate,
            test_data=test_data,
            tokenizer=tokenizer,
            output_dir=Path(output_dir),
            preprocess=preprocess,
            stats=stats,
            saves_model=is_in_memory(model),
            progress=progress or no_progress,
            scratch=scratch,
        )
        job = resolve(loaded, arguments, config)
        with locked_folder(job.output_dir), limited_memory(job.memory_limit):
            remove_abandoned(job.output_dir)
            _logger.info("calibrating")
            calibrated = calibrate(job)
            _logger.info("tuning")
            candidates = candidate_builder(job, calibrated, scratch)
            placed = place(job, calibrated, candidates, scratch)
            tuned = tune_recipe(job, calibrated, candidates, placed)
            _logger.info("writing the models")
            exported = export(job, tuned, scratch)
            _logger.info("comparing the models")
            evaluated = evaluate_models(job, calibrated, tuned, exported)
            report = report_models(job, calibrated, tuned, exported, evaluated)
            exported.require_complete()
            built = build(job, calibrated, tuned, exported)
            if built.tuned is not tuned:  # the builder refused nodes: what is reported is the model that it built
                exported = export(job, built.tuned, scratch)
                evaluated = evaluate_models(job, calibrated, built.tuned, exported, evaluated.comparison.metrics)
                report = report_models(job, calibrated, built.tuned, exported, evaluated)
                exported.require_complete()
            return report_engines(job, report, built, evaluate_engines(job, built.tuned, evaluated, built.engines))
