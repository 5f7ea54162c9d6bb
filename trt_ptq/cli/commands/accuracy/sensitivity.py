"""trt-ptq sensitivity: the effect of INT8 layer by layer."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq import choices
from trt_ptq._internal.files import check_writable, write_atomic
from trt_ptq._internal.listing import counted
from trt_ptq.api.calibrating import measure_sensitivity
from trt_ptq.api.inputs.table_input import matched_table
from trt_ptq.calibration.collector import check_statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.cli import console, options
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.open import open_data
from trt_ptq.data.subset import evenly_spaced
from trt_ptq.data.user_function import read_from
from trt_ptq.errors import DataError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.report.sensitivity_page import most_sensitive_first, render_sensitivity, sensitivity_cells
from trt_ptq.types import BatchSource, sample_count

_ROWS = 20  # --json lists all
_progress = partial(console.progress, unit="")


def sensitivity(
    model: options.Model,
    data: options.Data,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    samples: Annotated[
        int,
        typer.Option(
            min=1, help="Number of samples to measure on, rounded up to whole batches.", rich_help_panel=options.DATA
        ),
    ] = 16,
    stats: Annotated[
        Optional[Path],
        typer.Option(
            help="Statistics of this model, from `trt-ptq calibrate`.",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        Optional[choices.MethodName],
        typer.Option(
            metavar="METHOD",
            help="Range method for --stats: entropy, minmax, mse or percentile (default).",
            rich_help_panel=options.CALIBRATION,
            show_default=False,
        ),
    ] = None,
    percentile: options.PercentileValue = None,
    table: Annotated[
        Optional[Path],
        typer.Option(
            help="Calibration table, instead of --stats.", rich_help_panel=options.CALIBRATION, show_default=False
        ),
    ] = None,
    attention: options.Attention = False,
    evaluate: Annotated[
        Optional[str],
        typer.Option(
            "--eval",
            help="file.py:function with a metric (see `trt-ptq quantize`): evaluates the whole model once per layer.",
            rich_help_panel=options.ACCURACY,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", "-o", help="HTML page with a plot to write.", rich_help_panel=options.OUTPUT, show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure how sensitive each layer is to INT8, on the CPU. The most sensitive layers come first.

    "alone" and "all but it" are the error of the worst model output (error energy / signal energy) with only that layer
    in INT8, and with every layer but that one. "weights", "activations" and "both" are the SQNR in dB at the layer's
    own output with these in INT8. "clipping error" is the fraction of its activation error that clipping causes; the
    rest is rounding.

    Example: trt-ptq sensitivity model.onnx --stats stats.safetensors --data test/ -o sensitivity.html
    """
    if (stats is None) == (table is None):
        raise UsageError("give either --stats or --table")
    if table is not None and (method is not None or percentile is not None):
        raise UsageError("--method and --percentile need --stats: a table already has its ranges")
    if out is not None:
        tables = [path for path in (stats, table) if path is not None]
        check_writable(out, model, *tables, *read_from(data, preprocess, evaluate))
    loaded = load_model(model)
    source = _few(
        ValidatedSource(open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess), loaded.inputs),
        samples,
    )
    ranges = _ranges(loaded, stats, table, method, percentile)
    layers = measure_sensitivity(
        loaded, source, table=ranges, evaluate=evaluate, attention=attention, progress=_progress
    )
    measured = sum(sample_count(batch.feeds) for batch in source)
    source_text = f"{model}, ranges of {stats or table} ({_method(ranges)}), {measured} samples of {data}"
    if out is not None:
        write_atomic(out, render_sensitivity(layers, model.name, source_text))
    if json:
        console.print_json(
            {
                "samples": measured,
                "method": ranges.provenance and ranges.provenance.method,
                "layers": [asdict(layer) for layer in layers],
            }
        )
        return
    head, rows = sensitivity_cells(most_sensitive_first(layers))
    console.print_table(head, rows[:_ROWS], source_text)
    if len(rows) > _ROWS:
        console.say(f"{len(rows) - _ROWS} less sensitive layers: --json lists them all")
    if out is not None:
        console.say(f"{out}: {counted(len(layers), 'layer')}")


def _few(source: BatchSource, samples: int) -> BatchSource:
    first = next(iter(source), None)
    if first is None:
        raise DataError("the data has no batches to measure on")
    return evenly_spaced(source, math.ceil(samples / sample_count(first.feeds)))


def _ranges(
    model: Model,
    stats: Path | None,
    table: Path | None,
    method: str | None,
    percentile: float | None,
) -> CalibrationTable:
    if table is not None:
        return matched_table(table, model).table
    assert stats is not None
    statistics = load_statistics(stats)
    check_statistics(statistics, model, str(stats))
    return statistics.table(method or "percentile", percentile)


def _method(table: CalibrationTable) -> str:
    return f"method {table.provenance.method}" if table.provenance else "unknown method"
