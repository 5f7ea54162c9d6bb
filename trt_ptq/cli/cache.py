"""trt-ptq cache show | diff | convert | extract | retarget | lint"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq._internal.files import check_writable, write_atomic
from trt_ptq.analysis.dataflow import activations
from trt_ptq.calibrators.table.cache_lint import lint_cache
from trt_ptq.calibrators.table.diff import diff_tables
from trt_ptq.calibrators.table.table_file import save_table, table_format
from trt_ptq.calibrators.table.tensorrt_cache import (
    ALGORITHMS,
    LAST_WITH_CALIBRATORS,
    TensorRTCache,
    TensorRTVersion,
)
from trt_ptq.cli import console, options
from trt_ptq.cli.read_table import read_table
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.qdq.read_ranges import read_qdq_ranges

app = typer.Typer(help="Look at, compare, convert and check calibration tables.", no_args_is_help=True)

_FORMS = (
    "The name decides the form: .json ours; .flatbuffers or .ort.json for ONNX Runtime's TensorRT provider; else a "
    "TensorRT cache."
)
File = Annotated[Path, typer.Argument(help="A TensorRT cache, .json table or ONNX Runtime table.", show_default=False)]


@app.command()
def show(file: File, json: options.Json = False) -> None:
    """Print a table: header or provenance, and the range of each tensor.

    Example: trt-ptq cache show calibration.cache
    """
    table = read_table(file)
    if table.provenance:
        source = f"made by {table.provenance.method}"
    elif table_format(file) == "TensorRT cache":
        source = TensorRTCache.read(file).header
    else:
        source = "no provenance"
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


@app.command()
def diff(before: File, after: File, json: options.Json = False) -> None:
    """Compare the scales of two tables, in any form; the largest change comes first.

    Example: trt-ptq cache diff old.cache new.cache
    """
    difference = diff_tables(read_table(before), read_table(after))
    if json:
        console.print_json({"identical": difference.identical, **asdict(difference)})
        return
    if difference.identical:
        console.say(f"identical: {difference.equal} ranges")
        return
    rows = [[one.name, f"{one.before:.6g}", f"{one.after:.6g}", f"{one.ratio:.4f}"] for one in difference.changed]
    rows += [[name, "", "missing", ""] for name in difference.only_before]
    rows += [[name, "missing", "", ""] for name in difference.only_after]
    console.print_table(["tensor", f"amax in {before.name}", f"amax in {after.name}", "ratio"], rows)
    console.say(
        f"{len(difference.changed)} differ, {difference.equal} are equal, "
        f"{len(difference.only_before)} only in {before}, {len(difference.only_after)} only in {after}"
    )


@app.command()
def convert(
    source: File,
    target: Annotated[Path, typer.Argument(help=_FORMS, show_default=False)],
    trt_version: options.TrtVersion = str(LAST_WITH_CALIBRATORS),
    json: options.Json = False,
) -> None:
    """Convert between TensorRT's cache text, our JSON and ONNX Runtime's tables; the form goes by the file name.

    Example: trt-ptq cache convert calibration.cache calibration.json
    """
    version = TensorRTVersion.parse(trt_version)
    check_writable(target)
    table = read_table(source)
    save_table(table, target, version)
    if table.tensors_without_range:
        console.warn(
            f"{len(table.tensors_without_range)} tensors have no usable scale and no range in {target}: "
            f"{table.tensors_without_range[0]!r}"
        )
    if json:
        console.print_json(
            {"file": str(target), "ranges": len(table.amax), "tensors_without_range": list(table.tensors_without_range)}
        )
    else:
        console.say(f"{target}: {len(table.amax)} ranges")


@app.command()
def extract(
    model: Annotated[Path, typer.Argument(help="A Q/DQ model: ours, ONNX Runtime's, modelopt's.", show_default=False)],
    target: Annotated[Path, typer.Argument(help=_FORMS, show_default=False)],
    trt_version: options.TrtVersion = str(LAST_WITH_CALIBRATORS),
    json: options.Json = False,
) -> None:
    """Make a table of the activation ranges in a Q/DQ model, under the names of its float model.

    A tensor that the Q/DQ model does not quantize gets no range, so TensorRT keeps it in float.

    Example: trt-ptq cache extract model.int8.onnx calibration.cache --trt-version 10.16.1
    """
    version = TensorRTVersion.parse(trt_version)
    check_writable(target, model)
    found = read_qdq_ranges(model)
    save_table(found.table, target, version)
    if found.widened:
        console.warn(
            f"{len(found.widened)} tensors are not quantized symmetrically to int8: their ranges were widened to be"
        )
    if found.conflicting:
        names = ", ".join(map(repr, found.conflicting))
        console.warn(f"quantized with several scales, of which the widest was taken: {names}")
    if json:
        console.print_json(
            {
                "file": str(target),
                "ranges": dict(found.table.amax),
                "widened": [asdict(one) for one in found.widened],
                "conflicting": list(found.conflicting),
                "weights_skipped": found.num_weights,
            }
        )
        return
    if found.widened:
        rows = [[one.name, one.encoding, f"{one.amax:.6g}"] for one in found.widened]
        console.print_table(["widened to symmetric", "from", "amax"], rows)
    console.say(f"{target}: {len(found.table.amax)} ranges; {found.num_weights} weights skipped")


@app.command()
def retarget(
    source: Annotated[Path, typer.Argument(help="A TensorRT cache.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The cache to write.", show_default=False)],
    trt_version: Annotated[
        Optional[str],
        typer.Option("--trt-version", help="e.g. 10.16.1; as it is, if not given.", show_default=False),
    ] = None,
    algorithm: Annotated[
        Optional[str],
        typer.Option(help=f"One of {', '.join(ALGORITHMS)}; as it is, if not given.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a cache for another TensorRT version or calibrator: only the header changes, and line ends become LF.

    TensorRT ignores a cache whose major version or algorithm is not that of the running builder and calibrator.

    Example: trt-ptq cache retarget old.cache new.cache --trt-version 10.16.1
    """
    _need_cache(source, target)
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise UsageError(f"unknown algorithm {algorithm!r}: choose one of {', '.join(ALGORITHMS)}")
    check_writable(target)
    cache = TensorRTCache.read(source)
    changed = replace(
        cache,
        version=TensorRTVersion.parse(trt_version) if trt_version else cache.version,
        algorithm=algorithm or cache.algorithm,
        newline="\n",
        ending="\n",
    )
    write_atomic(target, changed.to_bytes())
    if json:
        console.print_json({"file": str(target), "before": cache.header, "after": changed.header})
    else:
        console.say(f"{target}: {cache.header} -> {changed.header}, {len(cache.entries)} entries")


@app.command()
def lint(
    file: Annotated[Path, typer.Argument(help="A TensorRT cache.", show_default=False)],
    model: Annotated[
        Optional[Path],
        typer.Option(help="The float ONNX model it is for: checks names too.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Look for what TensorRT would silently ignore, refuse or misuse. Exit status 3 if there are errors.

    Example: trt-ptq cache lint calibration.cache --model model.onnx
    """
    _need_cache(file)
    names = activations(load_model(model).to_ir().graph) if model else None
    findings = lint_cache(TensorRTCache.read(file), names)
    if json:
        console.print_json([asdict(finding) for finding in findings])
    elif findings:
        for one in findings:
            console.say(f"{one.severity} {one.rule}: {one.subject}: {one.effect}; {one.remedy}")
    else:
        console.say(f"{file}: nothing suspicious")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(3)


def _need_cache(*files: Path) -> None:
    for file in files:
        if table_format(file) != "TensorRT cache":
            raise UsageError(
                f"{file}: this works on TensorRT caches; `trt-ptq cache convert` makes one of another form"
            )
