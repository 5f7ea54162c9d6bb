"""trt-ptq build: an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from trt_ptq.api.engine import build_engine
from trt_ptq.api.mended_build import describe_refused
from trt_ptq.api.speed import compare_with_float16
from trt_ptq.cli import console, options
from trt_ptq.cli.commands.engines.implicit_build import build_implicit
from trt_ptq.engines.cost import DEFAULT_GPU, Gpu, load_gpu
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import BuilderConfig, HardwareCompatibility, Precision, parse_profiles
from trt_ptq.errors import EngineError, UsageError
from trt_ptq.speed.engine_comparison import SpeedComparison

_IMPLICIT = "Implicit quantization (TensorRT 10 and older)"
_UNMEASURED = (
    "no activations were measured, so a value beyond float16's range would overflow: give --data to `trt-ptq qdq`, or "
    "use `trt-ptq quantize`"
)


def build(
    model: Annotated[Path, typer.Argument(help="ONNX model: float, or Q/DQ of any tool.", show_default=False)],
    table: Annotated[
        Optional[Path],
        typer.Option(
            help="Calibration table for an INT8 engine: a TensorRT cache or .json.",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    allow_other_model: options.AllowOtherModel = False,
    exclude: options.Exclude = None,
    include: options.Include = None,
    attention: options.Attention = False,
    precision: Annotated[
        Optional[Precision],
        typer.Option(
            help="Default: int8 for a Q/DQ model or with a table, else fp16.",
            rich_help_panel=options.ENGINE,
            show_default=False,
        ),
    ] = None,
    shape: options.Shapes = None,
    backend: options.BuilderName = "auto",
    gpu: options.GpuOfBuild = None,
    require_speedup: options.RequireSpeedup = None,
    timing_cache: Annotated[
        Optional[Path],
        typer.Option(
            help="File with kernel timings, read if it exists and written after the build.",
            rich_help_panel=options.ENGINE,
            show_default=False,
        ),
    ] = None,
    workspace_mib: Annotated[
        Optional[int],
        typer.Option(min=1, help="Workspace limit in MiB.", rich_help_panel=options.ENGINE, show_default=False),
    ] = None,
    dla_core: Annotated[
        Optional[int],
        typer.Option(
            min=0,
            help="Run layers on this DLA core where possible (Jetson).",
            rich_help_panel=options.ENGINE,
            show_default=False,
        ),
    ] = None,
    hardware_compatibility: Annotated[
        HardwareCompatibility,
        typer.Option(
            metavar="LEVEL",
            help="GPUs that can run the engine: none (this model only), ampere+ or same-compute-capability.",
            rich_help_panel=options.ENGINE,
        ),
    ] = "none",
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Let other minor versions of TensorRT run the engine.",
            rich_help_panel=options.ENGINE,
        ),
    ] = False,
    implicit: Annotated[
        bool,
        typer.Option(
            "--implicit",
            help="Let TensorRT (10 or older) quantize the float model, with --table or --data, without Q/DQ.",
            rich_help_panel=_IMPLICIT,
        ),
    ] = False,
    dynamic_ranges: Annotated[
        bool,
        typer.Option(
            "--dynamic-ranges",
            help="Set the dynamic range of each tensor, instead of passing the table as a calibration cache.",
            rich_help_panel=_IMPLICIT,
        ),
    ] = False,
    data: Annotated[
        Optional[str],
        typer.Option(
            help="Inputs that TensorRT calibrates with (see `trt-ptq quantize`).",
            rich_help_panel=_IMPLICIT,
            show_default=False,
        ),
    ] = None,
    calibrator: Annotated[
        Optional[Literal["entropy", "minmax"]],
        typer.Option(
            help="Calibrator for --data. Default: entropy (Entropy2).", rich_help_panel=_IMPLICIT, show_default=False
        ),
    ] = None,
    cache: Annotated[
        Optional[Path],
        typer.Option(
            help="TensorRT's calibration cache for --data, used if it exists and fits, else written.",
            rich_help_panel=_IMPLICIT,
            show_default=False,
        ),
    ] = None,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Engine to write.", rich_help_panel=options.OUTPUT)] = Path(
        "model.engine"
    ),
    json: options.Json = False,
) -> None:
    """Build an engine, with a manifest (.json) beside it.

    A Q/DQ model is built unchanged. A float model is converted first: to Q/DQ with --table, else to FP16 (unless
    --precision is fp32).

    With --table, TensorRT-RTX also builds the FP16 engine, which is not kept, and trt-ptq says whether INT8 is
    estimated to be faster.

    With --implicit --data, TensorRT 10 calibrates with the calibrators of trt_ptq and keeps its cache in --cache.

    Example: trt-ptq build model.onnx --table calibration.json --shape x=1x3x224x224:8x3x224x224:16x3x224x224

    Example: trt-ptq build model.onnx --implicit --data calibration/ --cache model.cache
    """
    if implicit and (table is None) == (data is None):
        raise UsageError("--implicit needs either --table or --data")
    if data is not None and not implicit:
        raise UsageError("--data needs --implicit; for a Q/DQ engine, run `trt-ptq calibrate` first and give --table")
    if cache is not None and data is None:
        raise UsageError("--cache needs --data; to use an existing cache without data, give it as --table")
    if dynamic_ranges and (not implicit or table is None):
        raise UsageError("--dynamic-ranges needs --implicit and --table")
    if implicit and (exclude or include or attention or precision not in (None, "int8")):
        raise UsageError(
            "--implicit cannot be combined with --exclude, --include, --attention or a --precision other than int8"
        )
    if data is None and (calibrator is not None or preprocess is not None):
        raise UsageError("--calibrator and --preprocess need --data")
    if gpu is not None and (table is None or implicit):
        raise UsageError(
            "--gpu is for the time of an INT8 engine beside that of FP16, and needs a float model and --table; for any "
            "engine, use `trt-ptq plan --gpu`"
        )
    if require_speedup is not None and (table is None or implicit):
        raise UsageError(
            "`require_speedup` needs a float model and --table, to build the FP16 engine, too; compare two engines "
            "with `trt-ptq plan --against`, or `trt-ptq bench` on a GPU"
        )
    judged_on = load_gpu(gpu or DEFAULT_GPU)
    builder_config = BuilderConfig(
        timing_cache=timing_cache,
        workspace_bytes=workspace_mib and workspace_mib * 2**20,
        dla_core=dla_core,
        hardware_compatibility=hardware_compatibility,
        version_compatible=version_compatible,
    )
    if implicit:
        manifest = build_implicit(
            model,
            out,
            table=table,
            dynamic_ranges=dynamic_ranges,
            data=data,
            calibrator=calibrator or "entropy",
            cache=cache,
            batch_size=batch_size,
            preprocess=preprocess,
            profiles=parse_profiles(shape or []),
            backend=backend,
            builder_config=builder_config,
            allow_other_model=allow_other_model,
        )
    else:
        manifest = build_engine(
            model,
            out,
            table=table,
            nodes_to_exclude=exclude or (),
            nodes_to_include=include or (),
            attention=attention,
            precision=precision,
            shapes=parse_profiles(shape or []),
            backend=backend,
            builder_config=builder_config,
            allow_other_model=allow_other_model,
        )
    speed = None
    if table is not None and not implicit and (manifest.plan_sha256 is not None or require_speedup is not None):
        speed = _compare_speed(model, out, shape or [], judged_on, require_speedup is not None)
    if json:
        compared = {"speedup": speed.speedup, "speed": speed.model_dump(mode="json")} if speed else {}
        console.print_json({"engine": str(out), **manifest.model_dump(mode="json"), **compared})
    else:
        _show(manifest, out, table)
    if speed is not None:
        if not json:
            console.say(f"speed: {speed.judged(require_speedup)}")
        for finding in speed.findings:
            console.warn(finding)
        if require_speedup is not None and speed.speedup < require_speedup:
            raise typer.Exit(3)


def _compare_speed(model: Path, engine: Path, shape: list[str], gpu: Gpu, required: bool) -> SpeedComparison | None:
    """The INT8 engine against the FP16 engine; None where that cannot be told, unless it is required."""
    try:
        return compare_with_float16(model, engine, shapes=parse_profiles(shape), gpu=gpu)
    except (EngineError, UsageError) as error:  # a GPU that the builder does not know, say: the engine is there
        if required:
            raise
        console.warn(f"whether INT8 is faster is unknown: {error}")
        return None


def _show(manifest: EngineManifest, out: Path, table: Path | None) -> None:
    built_on = manifest.gpu or "a machine without a GPU, where it cannot run"
    console.say(
        f"{out}: {manifest.precision}, {manifest.size_bytes / 1e6:.2f} MB, built by {manifest.backend} "
        f"{manifest.backend_version} in {manifest.build_seconds:.1f} s on {built_on}"
    )
    if manifest.precision == "fp16":
        console.warn(_UNMEASURED)
    if manifest.refused_nodes:
        console.warn(
            f"{manifest.backend} has no INT8 implementation for {describe_refused(manifest.refused_nodes)}: excluded "
            "from quantization"
        )
    if manifest.tensors_without_range:
        console.warn(
            f"{len(manifest.tensors_without_range)} tensors have no range in {table}; TensorRT may derive some, and "
            f"runs the layers next to the others in FP16: {', '.join(manifest.tensors_without_range[:5])}"
            + (f", ... ({out}.json lists all)" if len(manifest.tensors_without_range) > 5 else "")
        )
