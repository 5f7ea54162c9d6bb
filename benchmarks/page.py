"""docs/benchmarks.md from the JSON files in benchmarks/results.

    python -m benchmarks.page [--check]

Each table names machine, commits and date of its figures. --check fails if the page is not up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.job.job_table import job_table
from benchmarks.language_models import lm_table
from benchmarks.results_file import FAILED, RESULTS, ROOT, Figures

PAGE = ROOT / "docs" / "benchmarks.md"

TITLES = {
    "fp32": "FP32",
    "onnxruntime-minmax-matrix": "ONNX Runtime MinMax, Conv/MatMul/Gemm",
    "onnxruntime-percentile-matrix": "ONNX Runtime Percentile 99.999, Conv/MatMul/Gemm",
    "onnxruntime-entropy-matrix": "ONNX Runtime Entropy, Conv/MatMul/Gemm",
    "onnxruntime-minmax-all": "ONNX Runtime MinMax, all operators",
    "onnxruntime-percentile-all": "ONNX Runtime Percentile 99.999, all operators",
    "onnxruntime-entropy-all": "ONNX Runtime Entropy, all operators",
    "modelopt-max": "modelopt, max",
    "modelopt-entropy": "modelopt, entropy",
    "ours-plain": "trt_ptq, no techniques, no search",
    "ours-1%": "trt_ptq, max_drop 1 %",
    "ours-0.5%": "trt_ptq, max_drop 0.5 %",
}
_INTRODUCTION = """\
# Benchmarks

`make bench` measures these figures, keeps them in `benchmarks/results/` and writes this page. A figure that is missing
was not measured. Nothing here was measured on a GPU.
"""
_ACCURACY = """\
## Accuracy

INT8 models of the same float models, calibrated with the same data and run by the same ONNX Runtime on its CPU, on test
data that calibrated none of them. What is not INT8 is FP32 in every row. The loss is that of the worst metric, relative
to FP32; the second figure is the fraction of MACs in INT8. The trt_ptq rows with `max_drop` also used a validation set,
which the other tools cannot use. One or two test samples make 0.1 to 0.3 points, so small differences mean nothing.
"""
_METHODS = """\
## Range methods and engine sizes

The same models with one range method for all tensors, no techniques and no search; what is not INT8 is FP16. TensorRT
for RTX built the engines, from the percentile model for INT8; they were not run.
"""
_JOB = """\
## A whole run

`quantize` from data to report, without engines. P is one pass of FP32 on ONNX Runtime, as it is by default, over all
data of the job: for calibration, for comparison, and of the metric. Jobs that end in "-plain" try no techniques and
exclude no layers, so there is nothing to mend. Counts do not depend on the machine.
"""
_PLANS = """\
## Plans of engines

What TensorRT for RTX makes of five models (ResNet-50 with random weights), read from the builder's log without a GPU:
kernels, bytes that they move, and an estimate of the time on an RTX 4090 from its data sheet, which is no measurement
(see [Engine plans](engine-plans.md)). Each cell is FP16 / INT8 for TensorRT / INT8 for TensorRT-RTX, where layers that
do not pay are in FP16 (see [TensorRT for RTX](tensorrt-rtx.md)). Two batches calibrated; ranges do not change a plan.
"""
_SPEED = """\
## Speed and memory of calibration

Both sides of a comparison take turns on the same machine; a ratio is the median of its rounds.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [_INTRODUCTION]
    if (accuracy := _read("accuracy")) is not None:
        parts += [_ACCURACY, "\n".join(_accuracy_rows(_figures(accuracy))), _source(accuracy)]
    if (methods := _read("methods")) is not None:
        parts += [_METHODS, "\n".join(_method_rows(_figures(methods))), _source(methods)]
    if (jobs := _read("job")) is not None:
        parts += [_JOB, "\n".join(job_table(_figures(jobs))), _source(jobs)]
    if (plans := _read("plans")) is not None:
        parts += [_PLANS, "\n".join(_plan_rows(_figures(plans))), _source(plans)]
    if (language_models := _read("language_models")) is not None:
        figures = _figures(language_models)
        parts += [*lm_table.sections(figures), _source(language_models)]
    if (speed := _read("speed")) is not None:
        parts += [_SPEED, "\n".join(_speed_rows(_figures(speed))), _source(speed)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _accuracy_rows(figures: Mapping[str, Figures]) -> Iterator[str]:
    models = [name.partition("/")[0] for name in figures if name.endswith("/fp32")]
    headings = [f"{name} ({', '.join(_metrics(figures[f'{name}/fp32']))})" for name in models]
    yield "| INT8 by | " + " | ".join(headings) + " |"
    yield "|---|" + "---|" * len(models)
    for label, title in TITLES.items():
        cells = [accuracy_cell(figures.get(f"{name}/{label}")) for name in models]
        if any(cells):
            yield f"| {title} | " + " | ".join(cells) + " |"


def _method_rows(models: Mapping[str, Figures]) -> Iterator[str]:
    labels = ("fp32", "fp16", "percentile", "minmax", "mse", "entropy")
    yield "| model, metric | " + " | ".join(labels) + " | MACs in INT8 | engine MB: FP32 / FP16 / INT8 |"
    yield "|---|" + "---|" * (len(labels) + 2)
    for name, results in models.items():
        if FAILED in results:
            continue
        sizes = " / ".join(f"{size / 1e6:.1f}" for size in results["engine_bytes"].values())
        fraction = f"{results['int8_fraction_of_macs']:.1%}"
        for metric in results["metrics"]["fp32"]:
            cells = [f"{results['metrics'][label][metric]:.4f}" for label in labels]
            yield f"| {name}, {metric.replace('_', ' ')} | " + " | ".join([*cells, fraction, sizes]) + " |"


def _plan_rows(models: Mapping[str, Figures]) -> Iterator[str]:
    columns: dict[str, Callable[[Figures], str]] = {
        "kernels": lambda engine: str(engine["kernels"]),
        "MB moved": lambda engine: f"{engine['bytes_moved'] / 1e6:.1f}",
        "engine MB": lambda engine: f"{engine['engine_bytes'] / 1e6:.1f}",
        "estimated ms": lambda engine: f"{engine['estimated_seconds'] * 1e3:.3f}",
    }
    yield "| model, input | " + " | ".join(columns) + " | INT8 against FP16, estimated |"
    yield "|---|" + "---|" * (len(columns) + 1)
    for name, row in models.items():
        if FAILED in row:
            continue
        engines = [row[key] for key in ("fp16", "int8", "int8_rtx") if key in row]
        cells = [" / ".join(map(show, engines)) for show in columns.values()]
        float16, *int8 = (engine["estimated_seconds"] for engine in engines)
        cells.append(" / ".join(f"{seconds / float16:.2f} x" for seconds in int8))
        yield f"| {name}, {next(iter(row['shapes'].values()))} | " + " | ".join(cells) + " |"


def _speed_rows(figures: Mapping[str, Figures]) -> Iterator[str]:
    yield "| what | measured |"
    yield "|---|---|"
    for measured in figures.values():
        for row in measured.get("rows", ()):
            yield f"| {row['what']} | {row['measured']} |"


def _metrics(row: Figures) -> list[str]:
    return [name.replace("_", " ") for name in row.get("metrics", ())]


def accuracy_cell(row: Figures | None) -> str:
    """Loss and fraction of MACs in INT8; the metrics of a float model; empty for a row that was not measured."""
    if row is None:
        return ""
    if FAILED in row:
        return FAILED
    if row["samples"] is None:
        return ", ".join(f"{value:.4f}" for value in row["metrics"].values())
    fraction = row["int8_fraction_of_macs"]
    return f"{row['loss']:.2%}" + ("" if fraction is None else f", {fraction:.0%}")


def _source(results: Mapping[str, Any]) -> str:
    """Machine, commits and date of `results`."""
    facts = results["environment"]
    commits = ", ".join(sorted({row["commit"] for row in results["rows"].values()}))
    libraries = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())
    return (
        f"Commit {commits}, {facts['date'][:10]}, {facts['processor']}, {facts['cores']} cores, "
        f"Python {facts['python']}, {libraries}.\n"
    )


def _figures(results: Mapping[str, Any]) -> dict[str, Figures]:
    return {name: row["figures"] for name, row in results["rows"].items()}


def _read(suite: str) -> dict[str, Any] | None:
    path = RESULTS / f"{suite}.json"
    content: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with status 1 if the page is not up to date")
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
