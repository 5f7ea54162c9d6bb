"""The whole job: from a float model and data to a verified INT8 model and engine. The place to read first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trt_ptq.accuracy.compare import Comparison, compare_models, fidelity_losses, fidelity_warnings
from trt_ptq.accuracy.engines import MeasuredEngine, measure_engines
from trt_ptq.accuracy.evaluate import Evaluate, Metrics, evaluate_model, metric_losses
from trt_ptq.accuracy.runner import onnx_runner
from trt_ptq.accuracy.verdict import EXCELLENT_BELOW, judge
from trt_ptq.calibrators.batches import BatchSource, Track, untracked
from trt_ptq.calibrators.errors import DataError, EngineError, MissingPackageError, ModelError, TrtPtqError
from trt_ptq.calibrators.files import write_atomic
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.calibrators.statistics.store import save_statistics
from trt_ptq.calibrators.table.store import save_table
from trt_ptq.calibrators.table.table import CalibrationTable, derive_table
from trt_ptq.collect.collector import collect
from trt_ptq.collect.convergence import Convergence, all_methods
from trt_ptq.collect.device import Device, Host
from trt_ptq.collect.magnitudes import float32_tensors, known_amax, measure_amax
from trt_ptq.collect.measuring import Nonfinite
from trt_ptq.collect.passes import Passes, plan_passes
from trt_ptq.data.audit import AuditedSource, HeldOutSource
from trt_ptq.data.checked import CheckedSource
from trt_ptq.data.shapes import ShapeWatch, profiles_from_shapes
from trt_ptq.data.split import split_source
from trt_ptq.engines.build import build_engine
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec, Precision, ShapeProfile
from trt_ptq.graph.float16_range import KeptNode
from trt_ptq.graph.half import HighPrecision, halve, to_float16
from trt_ptq.graph.macs import count_macs, share_in_int8
from trt_ptq.graph.model import Model, TensorSpec, model_size_bytes
from trt_ptq.graph.placement import QuantizationPlan
from trt_ptq.graph.qdq import QdqModel, insert_qdq
from trt_ptq.graph.save import save_model
from trt_ptq.graph.taps import Taps, choose_taps
from trt_ptq.report.folder import check_folder, remove_last_run
from trt_ptq.report.html import render_html
from trt_ptq.report.rows import kept_warnings, range_warnings, tensor_rows
from trt_ptq.report.schema import Judged, Report, write_report
from trt_ptq.version import __version__


@dataclass(frozen=True)
class QuantizeJob:
    """What to quantize, with what, and how to judge it.

    `test` is compared on; without it, one batch in five of `source` is held out for that. `data_name` is what the
    report calls the data. `evaluate(run)` returns metrics, `eval_name` names it in messages; without it, fidelity is
    judged. `attention` puts attention's MatMuls into INT8 too. `profiles` are taken from the data when empty. With
    `until_stable`, calibration ends when no range has moved by more (0.01: 1 %) since half as many samples.
    `high_precision` is that of what is not INT8.
    """

    model: Model
    source: BatchSource
    data_name: str
    method: RangeMethod
    out: Path
    test: BatchSource | None = None
    tensors: tuple[str, ...] = ("fused",)
    attention: bool = False
    nonfinite: Nonfinite = "refuse"
    device: Device = field(default_factory=Host)
    memory_limit: int | None = None  # bytes
    until_stable: float | None = None
    profiles: dict[str, ShapeProfile] = field(default_factory=dict)
    backend: str = "auto"
    high_precision: HighPrecision = "fp16"
    evaluate: Evaluate | None = None
    eval_name: str = ""
    max_drop: float = EXCELLENT_BELOW
    track: Track = untracked


@dataclass(frozen=True)
class QuantizeResult:
    """The report, and why an engine is missing: `engine_error` if a builder refused the model, or one that was
    asked for by name is not installed."""

    report: Report
    engine_error: TrtPtqError | None


def quantize(job: QuantizeJob) -> QuantizeResult:
    """Measure, decide, convert, judge, build; leaves every result in `job.out`.

    Raises:
        TrtPtqError: bad input, before or while it is used; what was finished by then stays.
    """
    check_folder(job.out, job.model.path, job.model.external.files)
    calibration, held_out = (_checked(job, part) for part in split_source(job.source, job.test))
    audited = AuditedSource(calibration)
    taps = choose_taps(job.model, job.tensors, job.attention)
    passes, amax_passes = _plan(job, taps, audited)
    watched = ShapeWatch(audited)
    convergence = Convergence(all_methods(job.method), job.until_stable)
    statistics = collect(
        job.model, watched, taps, job.nonfinite, job.track, passes, device=job.device, convergence=convergence
    )
    save_statistics(statistics, job.out / "stats.safetensors")
    profiles = job.profiles or profiles_from_shapes(watched.seen, job.model.inputs)
    stability = None if job.until_stable is None else convergence.stability()
    remove_last_run(job.out)
    table = derive_table(statistics, job.method)
    save_table(table, job.out / "calibration.cache")
    save_table(table, job.out / "calibration.json")
    rows = tensor_rows(statistics, table)
    warnings = audited.findings() + range_warnings(statistics, table, job.method.name)
    if stability and not stability.stable:
        warnings.append(str(stability))
    if stability and stability.stable and not job.profiles and any(_open_axes(one) for one in job.model.inputs):
        warnings.append(
            f"shape profiles are of the {stability.samples} samples that were read before the ranges were stable: give "
            "--shape if others are larger"
        )

    amax = known_amax(measure_amax(job.model, calibration, amax_passes), statistics)
    qdq, kept, high_precision = _convert(job, table, amax, warnings)
    warnings += [f"{one.op_type} {one.node!r} is left alone: {one.reason}" for one in qdq.plan.left_alone]
    files: dict[Precision, Path] = {"fp32": job.model.path, "int8": job.out / "model.int8.onnx"}
    save_model(qdq.model, files["int8"])
    files["fp16"] = job.out / "model.fp16.onnx"
    save_model(to_float16(job.model, amax), files["fp16"])
    runnable = _runnable(files, warnings)
    comparisons = _compare(job, runnable, HeldOutSource(held_out, audited), warnings)
    metrics = _evaluate(job, runnable, warnings)
    int8 = comparisons["int8"]
    losses = metric_losses(metrics["fp32"], metrics["int8"]) if metrics else fidelity_losses(int8)
    engines, engine_error = _build(job, files, profiles, warnings)
    measured = _measure_engines(job, engines, held_out, warnings)
    report = Report(
        tool=f"trt_ptq {__version__}",
        model=str(job.model.path),
        identity=job.model.identity,
        data=job.data_name,
        fingerprint=statistics.data,
        passes=len(passes),
        trajectory=convergence.trajectory(),
        stability=stability,
        held_out_samples=int8.samples,
        method=job.method.name,
        tensors=rows,
        nodes=list(qdq.nodes),
        int8_share_of_macs=_share_in_int8(job, qdq.plan, profiles, warnings),
        high_precision=high_precision,
        kept=kept,
        models=[
            Judged(
                precision=precision,
                file=files[precision].name,
                size_bytes=model_size_bytes(files[precision]),
                fidelity=comparisons[precision].outputs if precision in comparisons else {},
                metrics=metrics.get(precision, {}),
            )
            for precision in sorted(files, key=("fp32", "fp16", "int8").index)
        ],
        engines=engines,
        measured=measured,
        verdict=judge(losses, job.max_drop),
        warnings=warnings,
    )
    write_report(report, job.out / "report.json")
    write_atomic(job.out / "report.html", render_html(report))
    return QuantizeResult(report, engine_error)


def _plan(job: QuantizeJob, taps: Taps, source: BatchSource) -> tuple[Passes, Passes]:
    """The tensors of each pass for `collect`, and for `measure_amax`, which decides itself where there is no limit."""
    if job.memory_limit is None:
        return (taps.tensors,), ()
    floats = float32_tensors(job.model)
    return plan_passes(job.model, taps, source, job.memory_limit), plan_passes(
        job.model, floats, source, job.memory_limit
    )


def _checked(job: QuantizeJob, source: BatchSource) -> BatchSource:
    return CheckedSource(source, job.model.inputs, allow_nonfinite=job.nonfinite == "skip")


def _share_in_int8(
    job: QuantizeJob, plan: QuantizationPlan, profiles: dict[str, ShapeProfile], warnings: list[str]
) -> float | None:
    """How much of the arithmetic runs in INT8, at the shapes the engine is tuned for; None, and told, if unknown."""
    try:
        macs = count_macs(job.model, {name: profile.optimum for name, profile in profiles.items()})
    except ModelError as error:
        warnings.append(str(error))
        return None
    return share_in_int8(plan, macs)


def _convert(
    job: QuantizeJob, table: CalibrationTable, amax: dict[str, float], warnings: list[str]
) -> tuple[QdqModel, list[KeptNode], HighPrecision]:
    """The Q/DQ model, the nodes of it that stay FP32 in an FP16 rest, and what that rest is at last."""
    qdq = insert_qdq(job.model, table, attention=job.attention)
    if job.high_precision == "fp32":
        return qdq, [], "fp32"
    try:
        half = halve(qdq.model, amax)
    except ModelError as error:
        warnings.append(f"what is not INT8 stays in FP32: {error}")
        return insert_qdq(job.model, table, attention=job.attention), [], "fp32"
    warnings += kept_warnings(half.kept)
    return QdqModel(half.model, qdq.plan), list(half.kept), "fp16"


def _open_axes(one: TensorSpec) -> bool:
    """Whether more than the number of samples is open in the shape of an input."""
    return one.shape is None or any(isinstance(axis, str) for axis in one.shape[1:])


def _runnable(files: dict[Precision, Path], warnings: list[str]) -> dict[Precision, Path]:
    """`files` without a float16 model that ONNX Runtime cannot load: it is a baseline, and told."""
    if "fp16" in files:
        try:
            with onnx_runner(files["fp16"]):
                return files
        except ModelError as error:
            warnings.append(f"float16 was not judged: {error}")
    return {precision: path for precision, path in files.items() if precision != "fp16"}


def _compare(
    job: QuantizeJob, files: dict[Precision, Path], held_out: HeldOutSource, warnings: list[str]
) -> dict[Precision, Comparison]:
    """Fidelity of every other precision to FP32 on held-out batches."""
    others = [precision for precision in files if precision != "fp32"]
    compared = compare_models(files["fp32"], [files[precision] for precision in others], held_out, job.track)
    warnings += held_out.findings()
    for one in compared:
        warnings += fidelity_warnings(one)
    return dict(zip(others, compared, strict=True))


def _evaluate(job: QuantizeJob, files: dict[Precision, Path], warnings: list[str]) -> dict[Precision, Metrics]:
    """The user's metrics for every precision; empty without a metric. Float16 that has none is told, no more."""
    if job.evaluate is None:
        return {}
    metrics: dict[Precision, Metrics] = {}
    for precision, path in files.items():
        try:
            metrics[precision] = evaluate_model(path, job.evaluate, job.eval_name)
        except DataError as error:
            if precision != "fp16":
                raise
            warnings.append(f"float16 was not judged by the metric: {error}")
    return metrics


def _build(
    job: QuantizeJob, files: dict[Precision, Path], profiles: dict[str, ShapeProfile], warnings: list[str]
) -> tuple[list[EngineManifest], TrtPtqError | None]:
    """FP16 and INT8 engines. What hinders a builder does not undo the rest: it is told, and returned."""
    built = []
    for precision in ("fp16", "int8"):
        if precision not in files:
            continue
        spec = EngineSpec(
            onnx=files[precision],
            engine=_engine_path(job, precision),
            precision=precision,
            source=job.model.identity,
            profiles=profiles,
        )
        try:
            built.append(build_engine(spec, job.backend))
        except MissingPackageError as error:
            warnings.append(f"no engine was built: {error}")
            return built, None if job.backend == "auto" else error
        except EngineError as error:
            warnings.append(f"no {precision} engine was built: {error}")
            return built, error
    return built, None


def _engine_path(job: QuantizeJob, precision: str) -> Path:
    return job.out / f"model.{precision}.engine"


def _measure_engines(
    job: QuantizeJob, engines: list[EngineManifest], held_out: BatchSource, warnings: list[str]
) -> list[MeasuredEngine]:
    """Latency, layers and fidelity of what TensorRT built here; empty without a GPU. A failure is told, no more."""
    built: dict[Precision, Path] = {
        one.precision: _engine_path(job, one.precision) for one in engines if one.backend == "tensorrt"
    }
    if not built:
        return []
    try:
        return measure_engines(built, held_out, job.track)
    except (DataError, EngineError, MissingPackageError) as error:
        warnings.append(f"the engines were built, but not measured: {error}")
        return []
