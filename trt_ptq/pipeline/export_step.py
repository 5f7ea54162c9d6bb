"""Export: recipe, tables, and the INT8 and FP16 models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibrators.statistics.statistics_file import save_statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import save_table
from trt_ptq.calibrators.table.table_recipe import TableRecipe
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import OutputError, TableError
from trt_ptq.fp16.convert import to_float16
from trt_ptq.language_models.decoder import decoder_layout, is_decoder
from trt_ptq.language_models.kv_cache.cache_scales import cache_scales_content
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.output import CACHE_SCALES, FP16_MODEL, INT8_MODEL, RECIPE, STATISTICS, TABLES, TRANSFORMED
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.pipeline.tuning_step import Tuned
from trt_ptq.qdq.insert import QdqModel
from trt_ptq.recipe import save_recipe
from trt_ptq.report.warnings import (
    NO_INT8_NODES,
    WEIGHT_ONLY_ON_RTX,
    fp32_warnings,
    mask_warnings,
    per_channel_warnings,
    range_warnings,
    technique_warnings,
)
from trt_ptq.transforms.rounded_weights import replace_weights
from trt_ptq.tuning.candidates.candidate_builder import QuantizedCandidate


@dataclass(frozen=True)
class Exported:
    """The ONNX `files` by precision, "fp32" being the model that was given; `candidate` is the INT8 model.

    FP16 is a baseline: that it could not be written is one of the `warnings`. `error` is why another model is missing,
    as on a full disk; the INT8 model is in a temporary folder then, so that it can be compared.
    """

    files: Mapping[Precision, Path]
    candidate: QuantizedCandidate
    warnings: tuple[str, ...]
    error: OutputError | None = None

    def require_complete(self) -> None:
        """Make sure that no model is missing, once the report of what was measured is written.

        Raises:
            OutputError: the INT8 model or the transformed model could not be written.
        """
        if self.error is not None:
            raise OutputError(f"{self.error}; the report and all other results were written") from self.error


def export(job: QuantizationJob, tuned: Tuned, scratch: Path) -> Exported:
    """Write the recipe, the transformed model if there is one, the tables, and the INT8 and FP16 models.

    Args:
        job: the job.
        tuned: the recipe to export.
        scratch: a temporary folder, for an INT8 model that the output folder has no room for.

    Raises:
        DataError: a metric of the INT8 model is not finite.
        OutputError: the recipe or a table cannot be written, or there is no room for the INT8 model anywhere.
    """
    out = job.output_dir
    errors: list[OutputError] = []
    save_recipe(tuned.recipe, out / RECIPE)
    candidate = tuned.candidates.build(tuned.recipe)
    table = replace(tuned.table, recipe=_table_recipe(tuned, candidate))
    if tuned.candidates.changes_model(tuned.recipe):
        try:
            table = _save_transformed(job, tuned, candidate, table)
        except OutputError as error:
            errors.append(error)
    unwritten = []
    for name in TABLES:
        try:
            save_table(table, out / name)
        except TableError as error:
            unwritten.append(f"there is no {name}: {error}")
    if tuned.recipe.kv_cache == "int8":
        _save_cache_scales(job, tuned)
    if job.objective.metric is not None:
        job.objective.metric.require_finite(tuned.result.metrics, out / INT8_MODEL)
    int8 = out / INT8_MODEL
    try:
        save_model(candidate.qdq.model, int8)
    except OutputError as error:
        int8 = _save_elsewhere(candidate, scratch, error)
        errors.append(error)
    files: dict[Precision, Path] = {"fp32": job.model_file, "int8": int8}
    failures = [*unwritten, *(f"a result is missing: {error}" for error in errors)]
    plain = job.recipe.model_copy(update={"techniques": ()})
    float16 = to_float16(job.model, tuned.candidates.amax(plain))
    try:
        save_model(float16, out / FP16_MODEL)
        files["fp16"] = out / FP16_MODEL
    except OutputError as error:
        failures.append(f"there is no FP16 model or engine to compare INT8 with: {error}")
    return Exported(
        files=files,
        candidate=candidate,
        warnings=(*failures, *_warnings(tuned, candidate)),
        error=errors[0] if errors else None,
    )


def _save_transformed(
    job: QuantizationJob, tuned: Tuned, candidate: QuantizedCandidate, table: CalibrationTable
) -> CalibrationTable:
    """Write the float model that techniques have changed, and its statistics; return `table` as that of this model."""
    out = job.output_dir
    model, weights = tuned.calibrated_model.model.to_ir(), tuned.candidates.stored_weights(tuned.recipe)
    if weights:
        replace_weights(model.graph, candidate.qdq.plan, weights)
    save_model(model, out / TRANSFORMED)
    identity = load_model(out / TRANSFORMED).identity
    if tuned.calibrated_model.model is not job.model:
        save_statistics(replace(tuned.calibrated_model.statistics, model=identity), out / STATISTICS)
    assert table.provenance is not None
    return replace(table, provenance=replace(table.provenance, model=identity))


def _save_elsewhere(candidate: QuantizedCandidate, scratch: Path, error: OutputError) -> Path:
    """Write the INT8 model to `scratch`; raise `error`, why the output folder has none, if that fails too."""
    try:
        save_model(candidate.qdq.model, scratch / INT8_MODEL)
    except OutputError:
        raise error from None
    return scratch / INT8_MODEL


def _decodes_by_weights_on_rtx(tuned: Tuned, qdq: QdqModel) -> bool:
    """Whether weight-only layers of a language model are meant for TensorRT-RTX."""
    return tuned.recipe.target == "rtx" and qdq.num_weight_only_nodes > 0 and is_decoder(tuned.calibrated_model.model)


def _save_cache_scales(job: QuantizationJob, tuned: Tuned) -> None:
    """Write the scales of the INT8 cache, for applications."""
    content = cache_scales_content(tuned.candidates.cache_scales, decoder_layout(job.model))
    write_atomic(job.output_dir / CACHE_SCALES, json.dumps(content, indent=1) + "\n")


def _table_recipe(tuned: Tuned, candidate: QuantizedCandidate) -> TableRecipe:
    """What the table records so that it leads to the same INT8 model on another machine."""
    recipe, candidates = tuned.recipe, tuned.candidates
    corrections = candidates.bias_corrections(recipe)
    return TableRecipe(
        nodes_to_exclude=recipe.nodes_to_exclude,
        weight_only=recipe.weight_only,
        cache_scales=candidates.cache_scales if recipe.kv_cache == "int8" else {},
        attention=recipe.attention,
        target=recipe.target,
        high_precision=candidate.high_precision,
        magnitudes=candidates.float16_amax(recipe) if candidate.high_precision == "fp16" else {},
        bias_corrections=None
        if corrections is None
        else {name: tuple(map(float, corrections[name])) for name in corrections},
    )


def _warnings(tuned: Tuned, candidate: QuantizedCandidate) -> tuple[str, ...]:
    qdq, statistics = candidate.qdq, tuned.calibrated_model.statistics
    has_other_ranges = tuned.candidates.changes_model(tuned.recipe) and bool(qdq.plan.activations)
    return (
        *technique_warnings(tuned.recipe, has_other_ranges),
        *range_warnings(statistics, tuned.table, tuned.recipe.method_names, qdq.plan.activations),
        *filter(None, [candidate.warning]),
        *fp32_warnings(candidate.fp32_nodes),
        *mask_warnings(candidate.clamped_masks),
        *per_channel_warnings(candidate.per_channel),
        *([WEIGHT_ONLY_ON_RTX] if _decodes_by_weights_on_rtx(tuned, qdq) else []),
        *([] if any(node.is_int8 or node.weight_only for node in qdq.nodes) else [NO_INT8_NODES]),
        *(f"{node.op_type} {node.output!r} is not quantized: {node.reason}" for node in qdq.plan.unsupported),
    )
