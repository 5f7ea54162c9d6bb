"""Resolve: every check that needs no work, before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trt_ptq.api.inputs.language_input import open_language_data
from trt_ptq.api.inputs.metric_input import user_metric
from trt_ptq.api.inputs.model_input import ModelLike
from trt_ptq.calibration.devices import Device, open_device
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.choices import Mode, Nonfinite, Technique
from trt_ptq.config import QuantizeConfig, parse_shapes
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.open import open_data
from trt_ptq.data.scratch import Scratch
from trt_ptq.data.shape_profiles import match_profiles
from trt_ptq.data.spool import SpooledSource, is_in_memory
from trt_ptq.data.subset import split_source, two_halves
from trt_ptq.engines.backends import require_named_backend
from trt_ptq.engines.cost import Gpu, load_gpu
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.evaluation.reference import Reference
from trt_ptq.language_models.decoder import decoder_layout, is_decoder
from trt_ptq.language_models.judging.metric import PERPLEXITY
from trt_ptq.language_models.judging.relative_perplexity import RelativePerplexity
from trt_ptq.language_models.language_data import LanguageData
from trt_ptq.onnx_io.load import Model
from trt_ptq.output import FLOAT_MODEL, check_folder, check_outside
from trt_ptq.pipeline.kept_statistics import KeptStatistics, StatisticsLike, open_statistics
from trt_ptq.pipeline.starting_recipe import recipe_of, with_names_of_layers
from trt_ptq.qdq.plan import plan_quantization
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.judge import TimeLimit
from trt_ptq.tuning.objective import Objective
from trt_ptq.tuning.settings import EFFORTS, TuningSettings
from trt_ptq.types import BatchSource, ProgressCallback, ShapeProfile


@dataclass(frozen=True)
class Arguments:
    """The arguments of `quantize` beside the config.

    Attributes:
        model: the model as it was given.
        saves_model: whether the model has no file of its own.
        scratch: a temporary folder for the run.
    """

    model: ModelLike
    model_name: str
    data: Any
    evaluate: Evaluate | str | None
    test_data: Any
    tokenizer: Any
    output_dir: Path
    preprocess: Any
    stats: StatisticsLike | None
    saves_model: bool
    progress: ProgressCallback
    scratch: Path


@dataclass(frozen=True)
class QuantizationJob:
    """A job that was checked.

    Attributes:
        saves_model: whether the float model is written to the output directory, as it was given as an object.
        model_name: what the report calls the model; `data_name` and `metric_name` likewise.
        recipe: how to quantize, before anything is tuned; each excluded node by its first output.
        given_recipe: the same, as it was given.
        mode: what quantizing a layer means, and what happens to layers that lose too much; see `QuantizeConfig`.
        methods: range methods; of several, the one with the smallest output error replaces that of the recipe.
        by_default: techniques of `recipe` that nobody asked for.
        try_techniques: whether techniques beyond the recipe may be tried.
        search: whether sensitive layers may be excluded.
        tuning: constants of tuning.
        time_limit: how long candidates may be tried.
        language: the text of a causal language model; None for other models. Its batches are `calibration` and
            `held_out`, and its metric is that of `objective`, unless the user gave one.
        calibration: batches to calibrate with.
        kept_statistics: statistics of an earlier run, instead of a calibration.
        held_out: batches to compare on.
        test: the half of `held_out` that nothing is selected on; all of it with a user's metric, which has data of its
            own.
        objective: scores candidates, without a user's metric on the other half. A language model that is given without
            text is scored there by `RelativePerplexity`.
        memory_limit: bytes; None for no limit.
        places_layers: whether layers may be excluded that INT8 does not make faster.
        gpu: the GPU that times are estimated for.
        require_speedup: how many times as fast as FP16 the INT8 engine must be.
        profiles: shape profiles by input; empty if they are to come from the data.
    """

    model: Model
    saves_model: bool
    model_name: str
    data_name: str
    metric_name: str
    recipe: Recipe
    given_recipe: Recipe
    mode: Mode
    methods: tuple[RangeMethod, ...]
    by_default: tuple[Technique, ...]
    try_techniques: bool
    search: bool
    tuning: TuningSettings
    time_limit: TimeLimit
    max_drop: float
    language: LanguageData | None
    calibration: BatchSource
    kept_statistics: KeptStatistics | None
    held_out: BatchSource
    test: BatchSource
    objective: Objective
    tensors: tuple[str, ...]
    nonfinite: Nonfinite
    device: Device
    memory_limit: int | None
    until_stable: float | None
    profiles: dict[str, ShapeProfile]
    backend: str
    places_layers: bool
    gpu: Gpu
    require_speedup: float | None
    output_dir: Path
    progress: ProgressCallback

    @property
    def model_file(self) -> Path:
        """The float model, as a file that outlives the run."""
        return self.output_dir / FLOAT_MODEL if self.saves_model else self.model.path

    @property
    def selects_on_test(self) -> bool:
        """Whether candidates are scored on the very data that the verdict is computed on."""
        metric = self.objective.metric
        if metric is None or self.scores_held_out:
            return self.objective.source is self.test
        if self.language is not None and metric.name == PERPLEXITY:
            return self.language.selects_on_test
        return not metric.takes_split

    @property
    def scores_held_out(self) -> bool:
        """Whether candidates are scored on `held_out`, and not on data of a metric's own."""
        metric = self.objective.metric
        return metric is None or isinstance(metric.function, RelativePerplexity)


def resolve(model: Model, arguments: Arguments, config: QuantizeConfig) -> QuantizationJob:
    """Check everything that needs no work: names, paths, devices, the backend, and then the data, which may take long.

    Raises:
        TrtPtqError: names the parameter, the file or the node.
    """
    time_limit = TimeLimit(None if config.time_limit is None else float(config.time_limit))
    given_recipe = recipe_of(model, config)
    recipe = with_names_of_layers(given_recipe, model, config)
    plan_quantization(
        model.to_ir().graph,
        nodes_to_exclude=recipe.nodes_to_exclude,
        attention=recipe.attention,
        weight_only=recipe.weight_only,
    )
    if recipe.kv_cache == "int8":
        decoder_layout(model)
    kept_statistics = open_statistics(arguments.stats, model, config)
    profiles = match_profiles(parse_shapes(config.shapes), model.inputs)
    device = open_device(config.device)
    require_named_backend(config.backend)
    metric = user_metric(arguments.evaluate, config.lower_is_better)
    check_outside(arguments.output_dir, arguments.data, "data")
    check_outside(arguments.output_dir, arguments.test_data, "test_data")
    check_folder(arguments.output_dir, model.path, model.external.files)
    scratch = Scratch(arguments.scratch, None if config.scratch_limit is None else int(config.scratch_limit))
    open_any = partial(_open, model=model, preprocess=arguments.preprocess, config=config, scratch=scratch)
    language = open_language_data(
        arguments.model,
        model,
        arguments.data,
        arguments.test_data,
        arguments.tokenizer,
        config,
        arguments.scratch,
        arguments.preprocess,
    )
    if language is None:
        test_data = None if arguments.test_data is None else open_any(arguments.test_data)
        calibration, held_out = split_source(open_any(arguments.data), test_data)
    else:
        calibration, held_out = open_any(language.calibration), open_any(language.held_out)
        metric = metric or language.metric.as_user_metric()
    selection, test = (held_out, held_out) if metric else two_halves(held_out)
    reference = Reference(model.path, scratch)
    if metric is None and is_decoder(model):
        metric = RelativePerplexity(reference, selection, test).as_user_metric()
    tunes_ranges = config.recipe is None and config.mode != "w8a16"
    return QuantizationJob(
        model=model,
        saves_model=arguments.saves_model,
        model_name=arguments.model_name,
        data_name=_describe(arguments.data),
        metric_name="" if metric is None else _describe(arguments.evaluate or metric.name),
        recipe=recipe,
        given_recipe=given_recipe,
        mode=config.mode,
        methods=config.methods if tunes_ranges else (recipe.range_method(),),
        by_default=tuple(one for one in recipe.techniques if config.recipe is None and one not in config.techniques),
        try_techniques=tunes_ranges and "auto" in config.techniques,
        search=config.search and config.recipe is None,
        tuning=EFFORTS[config.effort],
        time_limit=time_limit,
        max_drop=float(config.max_drop),
        language=language,
        calibration=calibration,
        kept_statistics=kept_statistics,
        held_out=held_out,
        test=test,
        objective=Objective(reference, selection, metric),
        tensors=tuple(config.tensors),
        nonfinite=config.nonfinite,
        device=device,
        memory_limit=None if config.memory_limit is None else int(config.memory_limit),
        until_stable=None if config.until_stable is None else float(config.until_stable),
        profiles=profiles,
        backend=config.backend,
        places_layers=config.recipe is None and config.mode != "w8a16",
        gpu=load_gpu(config.gpu),
        require_speedup=config.require_speedup,
        output_dir=arguments.output_dir,
        progress=arguments.progress,
    )


def _open(data: Any, model: Model, preprocess: Any, config: QuantizeConfig, scratch: Scratch) -> BatchSource:
    """The batches of `data`, validated, and read once in the whole run."""
    source = open_data(data, model.inputs, batch_size=config.batch_size, preprocess=preprocess)
    valid = ValidatedSource(source, model.inputs, allow_nonfinite=config.nonfinite == "skip")
    return valid if is_in_memory(source) else SpooledSource(valid, scratch)


def _describe(argument: Any) -> str:
    """What the report calls the data or the metric."""
    if isinstance(argument, (str, os.PathLike)):
        return os.fspath(argument)
    return str(getattr(argument, "__name__", type(argument).__name__))
