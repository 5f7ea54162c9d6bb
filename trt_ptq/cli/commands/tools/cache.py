"""trt-ptq cache show | diff | convert | extract | retarget | lint"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq._internal.files import check_writable, write_atomic
from trt_ptq._internal.listing import first_few
from trt_ptq.calibrators.table.cache_lint import CacheFinding, TensorNames, lint_cache
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.diff import diff_tables
from trt_ptq.calibrators.table.table_file import table_format
from trt_ptq.calibrators.table.tensorrt_cache import (
    LAST_WITH_CALIBRATORS,
    Algorithm,
    TensorRTCache,
    TensorRTVersion,
)
from trt_ptq.cli import console, options
from trt_ptq.cli.lazy_group import add_command, new_app
from trt_ptq.cli.read_table import read_table
from trt_ptq.errors import UsageError

app = new_app(help="Show, compare, convert and check calibration tables.", no_args_is_help=True)

_MOST_NAMED = 5
_FORMATS = (
    "File to write. .json: trt_ptq's JSON; .flatbuffers or .ort.json: ONNX Runtime; anything else: TensorRT cache."
)
File = Annotated[
    Path, typer.Argument(help="A TensorRT cache, a .json table or a table of ONNX Runtime.", show_default=False)
]


@partial(add_command, app)
def show(file: File, json: options.Json = False) -> None:
    """Show a table: its provenance or header, and the range of each tensor.

    Example: trt-ptq cache show calibration.cache
    """
    table = read_table(file)
    method = table.provenance and f"method {table.provenance.method}"
    source = method or table.tensorrt_header or "no provenance"
    if json:
        provenance = table.provenance and asdict(table.provenance)
        console.print_json(
            {
                "file": str(file),
                "source": source,
                "provenance": provenance,
                "amax": dict(table.amax),
                "tensors_without_range": list(table.tensors_without_range),
            }
        )
        return
    rows = [[name, f"{amax:.6g}", f"{table.scale(name):.6g}"] for name, amax in table.amax.items()]
    rows += [[name, "no usable scale", ""] for name in table.tensors_without_range]
    console.print_table(["tensor", "amax", "scale"], rows, f"{file}: {source}, {len(table.amax)} ranges")


@partial(add_command, app)
def diff(before: File, after: File, json: options.Json = False) -> None:
    """Compare the scales of two tables, in any form; the largest change comes first.

    Example: trt-ptq cache diff old.cache new.cache
    """
    tables = read_table(before), read_table(after)
    difference = diff_tables(*tables)
    if json:
        console.print_json({"identical": difference.identical, **asdict(difference)})
        return
    if difference.identical:
        console.say(f"identical: {difference.equal} ranges")
        return
    rows = [
        [change.name, f"{change.before:.6g}", f"{change.after:.6g}", f"{change.ratio:.4f}"]
        for change in difference.changed
    ]
    others = *difference.unusable_before, *difference.unusable_after, *difference.only_before, *difference.only_after
    rows += [[name, *(_range_text(table, name) for table in tables), ""] for name in others]
    console.print_table(["tensor", f"amax in {before.name}", f"amax in {after.name}", "ratio"], rows)
    console.say(
        f"{len(difference.changed)} differ, {difference.equal} are equal, "
        f"{len(difference.only_before)} only in {before}, {len(difference.only_after)} only in {after}, "
        f"{len(difference.unusable_before) + len(difference.unusable_after)} without a usable scale in one"
    )


def _range_text(table: CalibrationTable, name: str) -> str:
    if name in table.amax:
        return f"{table.amax[name]:.6g}"
    return "no usable scale" if name in table.tensors_without_range else "missing"


@partial(add_command, app)
def convert(
    source: File,
    target: Annotated[Path, typer.Argument(help=_FORMATS, show_default=False)],
    trt_version: Annotated[
        Optional[str],
        typer.Option(
            "--trt-version",
            help="TensorRT version in the header of a cache. Default: that of the source, else 10.16.1.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Convert between TensorRT caches, trt_ptq's JSON and the tables of ONNX Runtime. File names select the formats.

    The header of a cache (TensorRT version and algorithm) is kept, also on the way through JSON, unless --trt-version
    is given.

    Example: trt-ptq cache convert calibration.cache calibration.json
    """
    version = TensorRTVersion.parse(trt_version) if trt_version else None
    check_writable(target)
    table = read_table(source)
    table.save(target, tensorrt_version=version)
    header = TensorRTCache.read(target).header if table_format(target) == "TensorRT cache" else None
    if table.tensors_without_range:
        console.warn(
            f"{len(table.tensors_without_range)} tensors have no usable scale and no range in {target}: "
            f"{table.tensors_without_range[0]!r}"
        )
    if json:
        console.print_json(
            {
                "file": str(target),
                "header": header,
                "ranges": len(table.amax),
                "tensors_without_range": list(table.tensors_without_range),
            }
        )
        return
    changed = f", was {table.tensorrt_header}" if table.tensorrt_header not in (None, header) else ""
    console.say(f"{target}: {len(table.amax)} ranges" + (f", header {header}{changed}" if header else ""))


@partial(add_command, app)
def extract(
    model: Annotated[Path, typer.Argument(help="A Q/DQ model, of any tool.", show_default=False)],
    target: Annotated[Path, typer.Argument(help=_FORMATS, show_default=False)],
    trt_version: options.TrtVersion = str(LAST_WITH_CALIBRATORS),
    json: options.Json = False,
) -> None:
    """Extract the activation ranges of a Q/DQ model as a table, by the tensor names of its float model.

    Tensors that the Q/DQ model does not quantize get no range, so TensorRT does not run them in INT8.

    Example: trt-ptq cache extract model.int8.onnx calibration.cache --trt-version 10.16.1
    """
    version = TensorRTVersion.parse(trt_version)
    check_writable(target, model)
    from trt_ptq.qdq.ranges.read_ranges import read_qdq_ranges  # imports ONNX, which the other commands do not need

    extracted = read_qdq_ranges(model)
    extracted.table.save(target, tensorrt_version=version)
    if extracted.widened:
        console.warn(f"{len(extracted.widened)} tensors are not quantized to symmetric int8: their ranges were widened")
    if extracted.conflicting:
        names = ", ".join(map(repr, extracted.conflicting))
        console.warn(f"quantized with several scales, the largest was used: {names}")
    if json:
        console.print_json(
            {
                "file": str(target),
                "ranges": dict(extracted.table.amax),
                "widened": [asdict(tensor) for tensor in extracted.widened],
                "conflicting": list(extracted.conflicting),
                "weights_skipped": extracted.num_weights,
            }
        )
        return
    if extracted.widened:
        rows = [[tensor.name, tensor.encoding, f"{tensor.amax:.6g}"] for tensor in extracted.widened]
        console.print_table(["widened to symmetric", "from", "amax"], rows)
    console.say(f"{target}: {len(extracted.table.amax)} ranges; {extracted.num_weights} weights skipped")


@partial(add_command, app)
def retarget(
    source: Annotated[Path, typer.Argument(help="A TensorRT cache.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The cache to write.", show_default=False)],
    trt_version: Annotated[
        Optional[str],
        typer.Option(
            "--trt-version", help="TensorRT version, such as 10.16.1. Default: unchanged.", show_default=False
        ),
    ] = None,
    algorithm: Annotated[
        Optional[Algorithm], typer.Option(help="Calibration algorithm. Default: unchanged.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Change the header of a cache, for another TensorRT version or calibrator. Line endings become LF.

    TensorRT ignores a cache whose major version or algorithm differs from the running builder and calibrator.

    Example: trt-ptq cache retarget old.cache new.cache --trt-version 10.16.1
    """
    _require_cache(source, target)
    check_writable(target)
    cache = TensorRTCache.read(source, TensorRTVersion.parse(trt_version) if trt_version else None)
    before = source.read_text().splitlines()[0]
    changed = replace(
        cache,
        algorithm=algorithm or cache.algorithm,
        newline="\n",
        ending="\n",
    )
    write_atomic(target, changed.to_bytes())
    if json:
        console.print_json({"file": str(target), "before": before, "after": changed.header})
    else:
        console.say(f"{target}: {before} -> {changed.header}, {len(cache.entries)} entries")


@partial(add_command, app)
def lint(
    file: Annotated[Path, typer.Argument(help="A TensorRT cache.", show_default=False)],
    model: Annotated[
        Optional[Path],
        typer.Option(help="The float ONNX model of the cache; also checks tensor names.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Find entries that TensorRT would silently ignore, reject or misuse. Exit status 3 if there are errors.

    With --model, also find tensors that INT8 needs a scale of and that have none. Long lists are cut; --json is whole.

    Example: trt-ptq cache lint calibration.cache --model model.onnx
    """
    _require_cache(file)
    names = None if model is None else _tensor_names(model)
    findings = lint_cache(TensorRTCache.read(file), names)
    if json:
        console.print_json([asdict(finding) for finding in findings])
    elif findings:
        alike: dict[CacheFinding, list[str]] = {}
        for finding in findings:
            alike.setdefault(replace(finding, subject=""), []).append(finding.subject)
        for finding, subjects in alike.items():
            names_all = f"{len(subjects)} names: " if len(subjects) > _MOST_NAMED else ""
            named = names_all + first_few(subjects, _MOST_NAMED)
            console.say(f"{finding.severity} {finding.rule}: {named}: {finding.effect}; {finding.remedy}")
    else:
        console.say(f"{file}: no problems found")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(3)


def _tensor_names(model: Path) -> TensorNames:
    from trt_ptq.analysis.dataflow import activations
    from trt_ptq.onnx_io.load import load_model
    from trt_ptq.qdq.plan import plan_quantization

    graph = load_model(model).to_ir().graph
    return TensorNames(activations(graph), plan_quantization(graph).activations)


def _require_cache(*files: Path) -> None:
    for file in files:
        if table_format(file) != "TensorRT cache":
            raise UsageError(
                f"{file}: this command works on TensorRT caches; convert the table with `trt-ptq cache convert`"
            )
