"""Calibrate: the statistics of the float model, and the shapes of its inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.convergence import Convergence, Stability, Trajectory, all_methods
from trt_ptq.calibration.measurements.grouped import GroupedStatistics
from trt_ptq.calibration.measurements.magnitudes import float32_tensors, measure_amax
from trt_ptq.calibration.memory_planner import plan_calibration, plan_passes
from trt_ptq.calibration.tensors import CalibrationTensors, select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import save_statistics
from trt_ptq.data.checks.audit import Audit
from trt_ptq.data.checks.input_ranges import InputRanges
from trt_ptq.data.observation import observe
from trt_ptq.data.shape_profiles import ShapeObserver, profiles_from_shapes
from trt_ptq.fp16.attention_masks import row_maxima
from trt_ptq.language_models.decoder_profiles import decoder_profiles
from trt_ptq.language_models.length_drift import RangeDrift, by_rising_length, range_drift
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.onnx_io.load import Model
from trt_ptq.output import STATISTICS, remove_last_run, remove_other_recipe, save_float_model, warn_of_removal
from trt_ptq.pipeline.job import QuantizationJob
from trt_ptq.pipeline.kept_statistics import OTHER_DATA
from trt_ptq.provenance import DataFingerprint
from trt_ptq.qdq.plan import plan_quantization
from trt_ptq.report.warnings import stability_warnings
from trt_ptq.types import BatchSource, ShapeProfile


@dataclass(frozen=True)
class Calibrated:
    """`statistics` of the float model, collected in `passes` over the data, and `profiles` of its inputs.

    `data` is the fingerprint of the samples of `source` that techniques are applied with: those of `statistics`, unless
    statistics of other data were kept.
    `audit` knows the samples that were calibrated with; it observes further passes over `source`, the calibration data.
    `trajectory` says how the ranges settled, `drift` how those of a language model depend on the length of the text.
    There are 0 passes, and no drift, where the statistics of an earlier run were kept.
    """

    statistics: Statistics
    data: DataFingerprint
    passes: int
    profiles: dict[str, ShapeProfile]
    source: BatchSource
    audit: Audit
    trajectory: Trajectory
    stability: Stability | None
    drift: tuple[RangeDrift, ...]
    warnings: tuple[str, ...]


def calibrate(job: QuantizationJob) -> Calibrated:
    """Collect statistics, unless some were kept, and save them; then remove what an earlier run derived from others.

    Raises:
        DataError: the user's metric fails on the float model, or a batch does not fit.
        ModelError: see `check_loaded`.
        StatisticsError: kept statistics lack a tensor.
        UsageError, OutputError: see `collect_statistics` and `save_statistics`.
    """
    audit, shapes, ranges = Audit(), ShapeObserver(), InputRanges()
    source = observe(job.calibration, audit, shapes, ranges)
    findings = check_loaded(job.model, job.calibration)
    calibration_tensors, passes = plan_calibration(
        job.model, source, job.tensors, job.recipe.attention, job.memory_limit
    )
    _ = job.objective.baseline  # a metric that fails does so here, not after the calibration
    convergence = Convergence(all_methods(job.methods[0]), job.until_stable)
    groups = GroupedStatistics()
    if job.kept_statistics is None:
        statistics = collect_statistics(
            job.model,
            source,
            calibration_tensors,
            job.nonfinite,
            job.progress,
            passes,
            device=job.device,
            convergence=convergence,
            groups=groups,
        )
        data = statistics.data
    else:
        statistics, passes = job.kept_statistics.statistics, ()
        job.kept_statistics.check_tensors(calibration_tensors)
        data = job.kept_statistics.fingerprint(source, job.progress)
        if data != statistics.data:
            findings.append(OTHER_DATA)
        convergence.record(statistics.data.samples, statistics.tensors)
    save_statistics(statistics, job.output_dir / STATISTICS)
    profiles = job.profiles or _profiles(job, shapes)
    warn_of_removal(job.output_dir, job.model.identity)
    remove_last_run(job.output_dir)
    if job.saves_model:
        save_float_model(job.model.path, job.model.external.files, job.output_dir)
    remove_other_recipe(job.output_dir, job.given_recipe)
    input_warnings = job.objective.metric.input_warnings(ranges) if job.objective.metric else []
    stability = None if job.until_stable is None else convergence.stability()
    return Calibrated(
        statistics=statistics,
        data=data,
        passes=len(passes),
        profiles=profiles,
        source=source,
        audit=audit,
        trajectory=convergence.trajectory(),
        stability=stability,
        drift=_drift(job, groups.statistics(statistics)),
        warnings=(
            *(*findings, *_data_findings(job, audit), *input_warnings),
            *stability_warnings(stability, job.model.inputs, bool(job.profiles)),
        ),
    )


def _drift(job: QuantizationJob, by_length: Mapping[str, Statistics]) -> tuple[RangeDrift, ...]:
    if job.language is None:
        return ()
    readers = plan_quantization(job.model.to_ir().graph, attention=job.recipe.attention).readers
    return tuple(range_drift(by_rising_length(by_length), readers=readers))


def _profiles(job: QuantizationJob, shapes: ShapeObserver) -> dict[str, ShapeProfile]:
    if job.language is None:
        return profiles_from_shapes(shapes.seen, job.model.inputs)
    return decoder_profiles(shapes.seen, job.model.inputs, job.language.layout)


def _data_findings(job: QuantizationJob, audit: Audit) -> tuple[str, ...]:
    """What is suspicious about the data: text is judged as text, since its batches and caches are made from it."""
    return tuple(audit.findings()) if job.language is None else job.language.audit.findings


def recalibrate(
    job: QuantizationJob,
    model: Model,
    before: Statistics,
    changed: Collection[str],
    source: BatchSource,
    *,
    of_same_data: bool = True,
) -> Statistics:
    """The statistics of a float model after a technique, from those of the model before it.

    Only tensors in `changed`, and new ones, are measured, on `source`. All others are the same function of the inputs
    as before: their values differ by the rounding of floats at most, so their statistics stay. If `before` is not
    `of_same_data`, all are measured: a table must not mix the ranges of two data sets.
    """
    selected = select_calibration_tensors(model, job.tensors, job.recipe.attention)
    kept = before.tensors.keys() - set(changed) if of_same_data else ()
    names = tuple(name for name in selected.tensors if name not in kept)
    if not names:
        return replace(before, model=model.identity, shares_range=selected.shares_range)
    measured = CalibrationTensors(names, selected.shares_range)
    passes = () if job.memory_limit is None else plan_passes(model, measured, source, job.memory_limit)
    statistics = collect_statistics(model, source, measured, job.nonfinite, job.progress, passes, device=job.device)
    known = {**before.tensors, **statistics.tensors}
    return replace(statistics, tensors={name: known[name] for name in selected.tensors})


def magnitudes(
    job: QuantizationJob, model: Model, before: Mapping[str, float], changed: Collection[str]
) -> dict[str, float]:
    """The largest magnitude of each float tensor after a technique, from those `before`; see `recalibrate`.

    Only tensors in `changed`, and new ones, are measured.
    """
    tensors = float32_tensors(model)
    names = {name for name in tensors if name in changed or name not in before}
    measured = measure_amax(model, job.calibration, job.memory_limit, only=names)
    kept = {name for tensor in tensors for name in (tensor, row_maxima(tensor)) if name in before}
    return {name: before[name] for name in before if name in kept} | measured
