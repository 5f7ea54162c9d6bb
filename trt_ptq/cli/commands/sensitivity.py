"""trt-ptq sensitivity"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq._internal.files import check_writable, write_atomic
from trt_ptq.calibration.collector import check_statistics
from trt_ptq.calibrators.methods import range_method
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.cli import console, options
from trt_ptq.cli.read_table import read_table
from trt_ptq.data.open import open_data
from trt_ptq.data.subset import evenly_spaced
from trt_ptq.data.user_function import load_function, read_from
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.errors import DataError, UsageError
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.report.sensitivity_page import most_sensitive_first, render_sensitivity, sensitivity_cells
from trt_ptq.sensitivity.measure import measure_sensitivity
from trt_ptq.types import BatchSource, sample_count

_ROWS = 20  # for people; --json has all
_progress = partial(console.progress, unit="")


def sensitivity(
    model: options.Model,
    data: options.Data,
    stats: Annotated[
        Optional[Path], typer.Option(help="Statistics of this model, by `calibrate`.", show_default=False)
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(
            help="With --stats: entropy, minmax, mse or percentile; percentile unless given.", show_default=False
        ),
    ] = None,
    percentile: options.PercentileValue = None,
    table: Annotated[
        Optional[Path], typer.Option(help="Instead of --stats: a calibration table.", show_default=False)
    ] = None,
    evaluate: Annotated[
        Optional[str],
        typer.Option(
            "--eval",
            help="file.py:function, as of `quantize`: also judge the whole model once a layer.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Measure on so many samples, rounded up to batches.")] = 16,
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    attention: options.Attention = False,
    json: options.Json = False,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="HTML page with a plot, to write.", show_default=False)
    ] = None,
) -> None:
    """Say what INT8 costs layer by layer, on the CPU, the layer that costs most first.

    "alone" and "all but it" are the error of the model's worst output (noise energy / signal energy) with only that
    layer in INT8, and with all others. At the layer's own output: SQNR in dB with only its weights, its activations, or
    both in INT8. "clipped" is the share of its activations' error that clipping makes; the rest is rounding.

    Example: trt-ptq sensitivity model.onnx --stats stats.safetensors --data test/ -o sensitivity.html
    """
    if (stats is None) == (table is None):
        raise UsageError("give --stats or --table, one of the two")
    if table is not None and (method is not None or percentile is not None):
        raise UsageError(f"the ranges of {table} are what they are: --method and --percentile go with --stats")
    if out is not None:
        tables = [one for one in (stats, table) if one is not None]
        check_writable(out, model, *tables, *read_from(data, preprocess, evaluate))
    metric = UserMetric(load_function(evaluate), evaluate) if evaluate else None
    loaded = load_model(model)
    source = _few(
        ValidatedSource(open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess), loaded.inputs),
        samples,
    )
    ranges = _ranges(loaded, stats, table, method, percentile)
    found = measure_sensitivity(
        loaded,
        ranges,
        source,
        attention=attention,
        metric=metric,
        progress=_progress,
    )
    measured = sum(sample_count(batch.feeds) for batch in source)
    made_from = f"{model}, ranges of {stats or table} ({_method(ranges)}), {measured} samples of {data}"
    if out is not None:
        write_atomic(out, render_sensitivity(found, model.name, made_from))
    if json:
        console.print_json(
            {
                "samples": measured,
                "method": ranges.provenance and ranges.provenance.method,
                "layers": [asdict(one) for one in found],
            }
        )
        return
    head, rows = sensitivity_cells(most_sensitive_first(found))
    console.print_table(head, rows[:_ROWS], made_from)
    if len(rows) > _ROWS:
        console.say(f"{len(rows) - _ROWS} more layers cost less: --json lists them all")
    if out is not None:
        console.say(f"{out}: {len(found)} layers")


def _few(source: BatchSource, samples: int) -> BatchSource:
    first = next(iter(source), None)
    if first is None:
        raise DataError("there are no batches to measure on")
    return evenly_spaced(source, math.ceil(samples / sample_count(first.feeds)))


def _ranges(
    model: Model,
    stats: Path | None,
    table: Path | None,
    method: str | None,
    percentile: float | None,
) -> CalibrationTable:
    if table is not None:
        found = read_table(table)
    else:
        assert stats is not None
        statistics = load_statistics(stats)
        check_statistics(statistics, model, str(stats))
        found = derive_table(statistics, range_method(method or "percentile", percentile))
    found.check_model(model.identity, str(table or stats))
    return found


def _method(table: CalibrationTable) -> str:
    return f"method {table.provenance.method}" if table.provenance else "of unknown method"
