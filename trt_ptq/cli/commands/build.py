"""trt-ptq build: an engine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import onnx_ir as ir
import typer

from trt_ptq._internal.files import check_writable
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.cli import console, options
from trt_ptq.cli.calibrator_option import calibrator_factory
from trt_ptq.cli.read_table import read_table
from trt_ptq.data.open import open_data
from trt_ptq.data.shape_profiles import check_profiles
from trt_ptq.data.user_function import read_from
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.manifest import manifest_path
from trt_ptq.engines.spec import (
    BuilderConfig,
    DynamicRanges,
    EngineSpec,
    ImplicitRanges,
    Precision,
    parse_profiles,
)
from trt_ptq.errors import EngineError, UsageError
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.match_table import match_table
from trt_ptq.qdq.node_selection import select_nodes

_IMPLICIT = "Implicit quantization (TensorRT 10 and older)"


def build(
    model: Annotated[Path, typer.Argument(help="Float ONNX model.", show_default=False)],
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
    precision: Annotated[
        Optional[options.PrecisionName],
        typer.Option(
            help="Default: int8 with a table, else fp16.",
            rich_help_panel=options.ENGINE,
            show_default=False,
        ),
    ] = None,
    shape: options.Shapes = None,
    backend: options.BuilderName = "auto",
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
        options.CompatibilityLevel,
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
        Optional[options.CalibratorName],
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

    With --implicit --data, TensorRT 10 calibrates with the calibrators of trt_ptq and keeps its cache in --cache.

    Example: trt-ptq build model.onnx --table calibration.json --shape x=1x3x224x224:8x3x224x224:16x3x224x224

    Example: trt-ptq build model.onnx --implicit --data calibration/ --cache model.cache
    """
    selected = _precision(precision, table is not None or data is not None)
    if implicit and (table is None) == (data is None):
        raise UsageError("--implicit needs either --table or --data")
    if data is not None and not implicit:
        raise UsageError("--data needs --implicit; for a Q/DQ engine, run `trt-ptq calibrate` first and give --table")
    if cache is not None and data is None:
        raise UsageError("--cache needs --data; to use an existing cache without data, give it as --table")
    if dynamic_ranges and (not implicit or table is None):
        raise UsageError("--dynamic-ranges needs --implicit and --table")
    if (exclude or include) and (implicit or table is None):
        raise UsageError("--exclude and --include need --table, without --implicit")
    if data is None and (calibrator is not None or preprocess is not None):
        raise UsageError("--calibrator and --preprocess need --data")
    settings = BuilderConfig(
        timing_cache=timing_cache,
        workspace_bytes=workspace_mib and workspace_mib * 2**20,
        dla_core=dla_core,
        hardware_compatibility=hardware_compatibility,
        version_compatible=version_compatible,
    )
    profiles = parse_profiles(shape or [])
    loaded = load_model(model)
    check_profiles(profiles, loaded.inputs)
    inputs = [model, *loaded.external.files, *([table] if table else []), *read_from(data, preprocess)]
    check_writable(out, *inputs)
    if cache is not None:
        check_writable(cache, *inputs, out, manifest_path(out))
    ranges = _ranges(loaded, table, allow_other_model)
    implicit_ranges: ImplicitRanges | None = None
    if data is not None:
        batches = ValidatedSource(
            open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess), loaded.inputs
        )
        implicit_ranges = calibrator_factory(calibrator or "entropy", loaded, batches, cache)
    elif implicit and ranges is not None:
        implicit_ranges = DynamicRanges(ranges) if dynamic_ranges else ranges
    # Not in /tmp, which may be small or in memory.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".trt-ptq-") as folder:
        converted = Path(folder) / f"{model.stem}.{selected}.onnx"
        if implicit_ranges is None:
            save_model(_convert(loaded, selected, ranges, include or (), exclude or ()), converted)
        else:
            save_model(loaded.to_ir(), converted)
        spec = EngineSpec(converted, out, selected, loaded.identity, profiles, settings, implicit_ranges)
        try:
            manifest = build_engine(spec, backend)
        except EngineError as error:  # names the temporary copy
            raise EngineError(str(error).replace(str(converted), str(model))) from error
    if json:
        console.print_json({"engine": str(out), **manifest.model_dump(mode="json")})
        return
    built_on = manifest.gpu or "a machine without a GPU, where it cannot run"
    console.say(
        f"{out}: {selected}, {manifest.size_bytes / 1e6:.2f} MB, built by {manifest.backend} "
        f"{manifest.backend_version} in {manifest.build_seconds:.1f} s on {built_on}"
    )
    if selected == "fp16":
        console.warn(options.UNMEASURED)
    if manifest.tensors_without_range:
        console.warn(
            f"{len(manifest.tensors_without_range)} tensors have no range in {table}; TensorRT may derive some, and "
            f"runs the layers next to the others in FP16: {', '.join(manifest.tensors_without_range[:5])}"
            + (f", ... ({out}.json lists all)" if len(manifest.tensors_without_range) > 5 else "")
        )


def _precision(name: Precision | None, has_ranges: bool) -> Precision:
    precision: Precision = name or ("int8" if has_ranges else "fp16")
    if (precision == "int8") != has_ranges:
        raise UsageError("--precision int8 needs --table (or --implicit --data); fp16 and fp32 take neither")
    return precision


def _ranges(model: Model, table: Path | None, allow_other_model: bool) -> CalibrationTable | None:
    if table is None:
        return None
    ranges = read_table(table)
    if not allow_other_model:
        ranges.check_model(model.identity, str(table))
    return match_table(model.to_ir().graph, ranges, str(table)).table


def _convert(
    model: Model, precision: Precision, ranges: CalibrationTable | None, include: Sequence[str], exclude: Sequence[str]
) -> ir.Model:
    if precision == "fp32":
        return model.to_ir()
    if ranges is None:
        return to_float16(model)
    return insert_qdq(model, ranges, select_nodes(model.to_ir().graph, include, exclude)).model
