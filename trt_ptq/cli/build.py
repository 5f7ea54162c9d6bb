"""trt-ptq build"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Optional

import onnx_ir as ir
import typer

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.calibrators.files import check_writable
from trt_ptq.cli import console, options
from trt_ptq.cli.tables import read_table
from trt_ptq.engines.build import build_engine, check_backend
from trt_ptq.engines.spec import EngineSpec, Precision, parse_profiles
from trt_ptq.graph.half import to_float16
from trt_ptq.graph.migration import migrate_table
from trt_ptq.graph.model import Model, load_model
from trt_ptq.graph.profiles import check_profiles
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import save_model


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
    allow_other_model: options.AllowOtherModel = False,
    json: options.Json = False,
) -> None:
    """Build an engine from a float model, with a manifest (.json) beside it.

    Example: trt-ptq build model.onnx --table calibration.json --shape x=1x3x224x224:8x3x224x224:16x3x224x224
    """
    wanted = _precision(precision, table)
    check_backend(backend)
    profiles = parse_profiles(shape or [])
    loaded = load_model(model)
    check_profiles(profiles, loaded)
    check_writable(out)
    with tempfile.TemporaryDirectory(prefix="trt-ptq-") as folder:
        converted = Path(folder) / f"{model.stem}.{wanted}.onnx"
        save_model(_convert(loaded, wanted, table, allow_other_model), converted)
        spec = EngineSpec(converted, out, wanted, loaded.identity, profiles)
        manifest = build_engine(spec, backend)
    if json:
        console.print_json({"engine": str(out), **manifest.model_dump(mode="json")})
        return
    console.say(
        f"{out}: {wanted}, {manifest.size_bytes / 1e6:.2f} MB, built by {manifest.backend} {manifest.backend_version} "
        f"in {manifest.build_seconds:.1f} s" + ("" if manifest.gpu else " without a GPU: it has not been run")
    )


def _precision(text: str | None, table: Path | None) -> Precision:
    wanted = text or ("int8" if table else "fp16")
    if (wanted == "int8") != (table is not None):
        raise UsageError("--precision int8 needs --table, and no other precision takes one")
    if wanted == "int8":
        return "int8"
    if wanted == "fp16":
        return "fp16"
    if wanted == "fp32":
        return "fp32"
    raise UsageError(f"--precision is int8, fp16 or fp32, not {wanted!r}")


def _convert(model: Model, precision: Precision, table: Path | None, allow_other_model: bool) -> ir.Model:
    if precision == "fp32":
        return model.to_ir()
    if table is None:
        return to_float16(model)
    ranges = read_table(table)
    if not allow_other_model:
        ranges.refuse_other_model(model.identity, str(table))
    return insert_qdq(model, migrate_table(model.to_ir().graph, ranges, str(table)).table).model
