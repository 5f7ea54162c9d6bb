"""trt-ptq table: a calibration table from statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq._internal.files import check_writable
from trt_ptq._internal.listing import counted
from trt_ptq.calibrators.methods import range_method
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.calibrators.table.tensorrt_cache import LAST_WITH_CALIBRATORS, TensorRTVersion
from trt_ptq.cli import console, options
from trt_ptq.report.rows import tensor_rows
from trt_ptq.report.warnings import range_warnings


def table(
    stats: Annotated[Path, typer.Argument(help="Statistics file of `trt-ptq calibrate`.", show_default=False)],
    method: options.Method = "percentile",
    percentile: options.PercentileValue = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out",
            "-o",
            help="TensorRT cache, or .json, to write.",
            rich_help_panel=options.OUTPUT,
            show_default=False,
        ),
    ] = None,
    trt_version: options.TrtVersion = str(LAST_WITH_CALIBRATORS),
    json: options.Json = False,
) -> None:
    """Derive a calibration table from statistics, with any range method. Needs neither data nor model.

    The asymmetric scale and zero point are for analysis only: TensorRT quantizes symmetrically.

    Example: trt-ptq table stats.safetensors --method percentile --percentile 99.9 -o calibration.cache
    """
    version = TensorRTVersion.parse(trt_version)
    chosen_method = range_method(method, percentile)
    statistics = load_statistics(stats)
    derived = derive_table(statistics, chosen_method)
    if out is not None:
        check_writable(out, stats)
        derived.save(out, tensorrt_version=version)
    rows = tensor_rows(statistics, derived)
    warnings = range_warnings(statistics, derived, [chosen_method.name])
    for warning in warnings:
        console.warn(warning)
    if json:
        tensors = [row.model_dump(mode="json", exclude={"bars", "bars_end", "used"}) for row in rows]
        console.print_json({"method": chosen_method.name, "tensors": tensors, "warnings": warnings})
        return
    console.print_table(
        ["tensor", "min", "max", "amax", "scale", "clipped", "asym. scale", "zero pt"],
        (
            [
                row.name,
                f"{row.minimum:.4g}",
                f"{row.maximum:.4g}",
                f"{row.amax:.4g}",
                f"{row.scale:.4g}",
                f"{row.clipped:.3%}",
                f"{row.asymmetric_scale:.4g}",
                str(row.asymmetric_zero_point),
            ]
            for row in rows
        ),
        f"{stats}, method {chosen_method.name}, {statistics.data.samples} samples",
    )
    if out is not None:
        console.say(f"{out}: {counted(len(derived.amax), 'range')}")
