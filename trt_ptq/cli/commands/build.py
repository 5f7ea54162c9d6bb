"""trt-ptq build"""

from __future__ import annotations

import tempfile
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
from trt_ptq.engines.backends import build_engine, check_backend
from trt_ptq.engines.manifest import manifest_path
from trt_ptq.engines.spec import (
    BuilderConfig,
    DynamicRanges,
    EngineSpec,
    ImplicitRanges,
    Precision,
    parse_hardware_compatibility,
    parse_profiles,
)
from trt_ptq.errors import EngineError, UsageError
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.match_table import match_table


def build(
    model: options.Model,
    table: Annotated[
        Optional[Path], typer.Option(help="TensorRT cache or .json table, for int8.", show_default=False)
    ] = None,
    precision: Annotated[
        Optional[str],
        typer.Option(help="int8, fp16 or fp32; int8 if a table is given, else fp16.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Engine to write.")] = Path("model.engine"),
    shape: options.Shapes = None,
    backend: options.Backend = "auto",
    implicit: Annotated[
        bool,
        typer.Option(
            "--implicit",
            help="TensorRT 10 and older: let TensorRT quantize the float model, by --table or with --data; no Q/DQ.",
        ),
    ] = False,
    data: Annotated[
        Optional[str],
        typer.Option(
            help="With --implicit: TensorRT calibrates with these inputs (forms: see quantize).", show_default=False
        ),
    ] = None,
    calibrator: Annotated[
        Optional[str],
        typer.Option(help="With --data: entropy (Entropy2) unless minmax is asked for.", show_default=False),
    ] = None,
    cache: Annotated[
        Optional[Path],
        typer.Option(
            help="With --data: TensorRT's cache; used if it is there and fits, else written.", show_default=False
        ),
    ] = None,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    dynamic_ranges: Annotated[
        bool,
        typer.Option(
            "--dynamic-ranges",
            help="With --implicit: set each tensor's range, instead of serving the table as a cache.",
        ),
    ] = False,
    timing_cache: Annotated[
        Optional[Path],
        typer.Option(help="Timings of kernels: read if there, written after the build.", show_default=False),
    ] = None,
    workspace_mib: Annotated[
        Optional[int], typer.Option(min=1, help="Limit on scratch memory, in MiB.", show_default=False)
    ] = None,
    dla_core: Annotated[
        Optional[int], typer.Option(min=0, help="Run what can on this DLA core (Jetson).", show_default=False)
    ] = None,
    hardware_compatibility: Annotated[
        str, typer.Option(help="none, ampere+ or same-compute-capability: other GPUs that shall run the engine.")
    ] = "none",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Other minor versions of TensorRT shall run the engine.")
    ] = False,
    allow_other_model: options.AllowOtherModel = False,
    json: options.Json = False,
) -> None:
    """Build an engine from a float model, with a manifest (.json) beside it.

    With --implicit --data, TensorRT 10 calibrates by itself, with our calibrators, and keeps its cache in --cache.

    Example: trt-ptq build model.onnx --implicit --data calibration/ --cache model.cache

    Example: trt-ptq build model.onnx --table calibration.json --shape x=1x3x224x224:8x3x224x224:16x3x224x224
    """
    wanted = _precision(precision, table is not None or data is not None)
    check_backend(backend)
    if implicit and (table is None) == (data is None):
        raise UsageError("--implicit needs either --table or --data")
    if data is not None and not implicit:
        raise UsageError("--data goes with --implicit; for a Q/DQ engine, calibrate first and give --table")
    if cache is not None and data is None:
        raise UsageError("--cache goes with --data; to use an existing cache alone, give it as --table")
    if dynamic_ranges and (not implicit or table is None):
        raise UsageError("--dynamic-ranges is a way of --implicit --table: give all three")
    if data is None and (calibrator is not None or preprocess is not None):
        raise UsageError("--calibrator and --preprocess go with --data")
    settings = BuilderConfig(
        timing_cache=timing_cache,
        workspace_bytes=workspace_mib and workspace_mib * 2**20,
        dla_core=dla_core,
        hardware_compatibility=parse_hardware_compatibility(hardware_compatibility),
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
    served: ImplicitRanges | None = None
    if data is not None:
        batches = ValidatedSource(
            open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess), loaded.inputs
        )
        served = calibrator_factory(calibrator or "entropy", loaded, batches, cache)
    elif implicit and ranges is not None:
        served = DynamicRanges(ranges) if dynamic_ranges else ranges
    # Beside the engine: there is room for another of its size, and /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".trt-ptq-") as folder:
        converted = Path(folder) / f"{model.stem}.{wanted}.onnx"
        save_model(loaded.to_ir() if served is not None else _convert(loaded, wanted, ranges), converted)
        spec = EngineSpec(converted, out, wanted, loaded.identity, profiles, settings, served)
        try:
            manifest = build_engine(spec, backend)
        except EngineError as error:  # names our copy, which is gone by then
            raise EngineError(str(error).replace(str(converted), str(model))) from error
    if json:
        console.print_json({"engine": str(out), **manifest.model_dump(mode="json")})
        return
    console.say(
        f"{out}: {wanted}, {manifest.size_bytes / 1e6:.2f} MB, built by {manifest.backend} {manifest.backend_version} "
        f"in {manifest.build_seconds:.1f} s" + ("" if manifest.gpu else " without a GPU: it has not been run")
    )
    if wanted == "fp16":
        console.warn(options.UNMEASURED)
    if manifest.tensors_without_range:
        console.warn(
            f"{len(manifest.tensors_without_range)} tensors have no range in {table}; TensorRT may derive some, and "
            f"runs what reads or makes the others in FP16: {', '.join(manifest.tensors_without_range[:5])}"
            + (f", ... (all in {out}.json)" if len(manifest.tensors_without_range) > 5 else "")
        )


def _precision(text: str | None, has_ranges: bool) -> Precision:
    wanted = text or ("int8" if has_ranges else "fp16")
    if (wanted == "int8") != has_ranges:
        raise UsageError("--precision int8 needs --table (or --implicit --data), and no other precision takes one")
    if wanted == "int8":
        return "int8"
    if wanted == "fp16":
        return "fp16"
    if wanted == "fp32":
        return "fp32"
    raise UsageError(f"--precision is int8, fp16 or fp32, not {wanted!r}")


def _ranges(model: Model, table: Path | None, allow_other_model: bool) -> CalibrationTable | None:
    if table is None:
        return None
    ranges = read_table(table)
    if not allow_other_model:
        ranges.check_model(model.identity, str(table))
    return match_table(model.to_ir().graph, ranges, str(table)).table


def _convert(model: Model, precision: Precision, ranges: CalibrationTable | None) -> ir.Model:
    if precision == "fp32":
        return model.to_ir()
    if ranges is None:
        return to_float16(model)
    return insert_qdq(model, ranges).model
