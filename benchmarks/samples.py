"""How many samples are enough: ranges and task metric of four real models against the number of calibration samples.

    python -m benchmarks.samples [--json FILE] [--models recogniser magika] [--orders 3] [--metric-orders 1]

The samples are shuffled, once for each order; ranges are compared with those of all samples. INT8 models run on
ONNX Runtime's CPU.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.methods import MODELS
from trt_ptq.accuracy.evaluate import evaluate_model
from trt_ptq.calibrators.batches import Batch, Feeds, sample_count
from trt_ptq.calibrators.methods import METHODS, RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics, merge
from trt_ptq.calibrators.table.table import derive_table
from trt_ptq.collect.collector import collect
from trt_ptq.graph.model import Model, load_model
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import save_model
from trt_ptq.graph.taps import Taps, choose_taps

COUNTS = (10, 20, 50, 100, 200, 500, 1000, 2000)
MOST = {"recogniser": 2000, "detector": 1000, "magika": 2000, "minilm": 2000}


@dataclass(frozen=True)
class Chosen:
    """The samples numbered in `chosen` of all that `generate` yields, one a batch."""

    generate: Callable[[], Iterable[Feeds]]
    chosen: frozenset[int]

    @property
    def total(self) -> int | None:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        for feeds in self.generate():
            for index in range(sample_count(feeds)):
                if number in self.chosen:
                    sample = {name: array[index : index + 1] for name, array in feeds.items()}
                    yield Batch(sample, f"sample {number}")
                number += 1


def measure(name: str, module: ModuleType, orders: int, metric_orders: int) -> dict[str, Any]:
    """By method, for each order and number of samples: the ranges' distances to the final ones, and the metric."""
    model = load_model(module.model())
    taps = choose_taps(model)

    def generate() -> Iterable[Feeds]:
        yield from module.calibration(samples=MOST[name])

    available = sum(sample_count(feeds) for feeds in generate())
    counts = [count for count in COUNTS if count < available] + [available]
    result: dict[str, Any] = {"samples": counts, "tensors": len(taps.tensors), "methods": {}}
    grown = [_growing(model, taps, generate, counts, seed) for seed in range(orders)]
    for label, method in METHODS.items():
        ranges = [[_ranges(statistics, method) for statistics in order] for order in grown]
        final = ranges[0][-1]
        distances = [[_distances(one, final) for one in order] for order in ranges]
        entry = {
            "p90": [[float(np.percentile(one, 90)) for one in order] for order in distances],
            "worst": [[float(one.max()) for one in order] for order in distances],
            "slowest": taps.tensors[int(np.argmax(distances[0][-2]))],
            "metrics": [],
        }
        result["methods"][label] = entry
        for order in grown[:metric_orders]:
            metrics = []
            for statistics in order:
                metrics.append(_metric(name, module, model, statistics, method))
                print(name, label, statistics.data.samples, metrics[-1], flush=True)
            entry["metrics"].append(metrics)
    result["fp32"] = evaluate_model(model.path, module.evaluate, name)
    return result


def _growing(
    model: Model, taps: Taps, generate: Callable[[], Iterable[Feeds]], counts: list[int], seed: int
) -> list[Statistics]:
    """Statistics of the first 10, 20, … samples in one random order."""
    order = list(range(counts[-1]))
    random.Random(seed).shuffle(order)
    grown: list[Statistics] = []
    for start, stop in zip([0, *counts], counts, strict=False):
        part = collect(model, Chosen(generate, frozenset(order[start:stop])), taps)
        grown.append(merge([*grown[-1:], part]))
    return grown


def _ranges(statistics: Statistics, method: RangeMethod) -> list[float]:
    return [method.amax(tensor) for tensor in statistics.tensors.values()]


def _distances(ranges: list[float], final: list[float]) -> Any:
    """|a - b| / max(a, b) of each range: 0 where both are the same."""
    a, b = np.array(ranges), np.array(final)
    return np.abs(a - b) / np.maximum(np.maximum(a, b), np.finfo(np.float64).tiny)


def _metric(
    name: str, module: ModuleType, model: Model, statistics: Statistics, method: RangeMethod
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        save_model(insert_qdq(model, derive_table(statistics, method)).model, path)
        return dict(evaluate_model(path, module.evaluate, name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--orders", type=int, default=3, help="random orders for the ranges")
    parser.add_argument("--metric-orders", type=int, default=1, help="of these, for the metric")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name in arguments.models:
        results[name] = measure(name, MODELS[name], arguments.orders, arguments.metric_orders)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    _print_tables(results)


def _print_tables(results: dict[str, Any]) -> None:
    """As Markdown: distances in percent, median of the orders; metrics of the orders' mean."""
    for name, result in results.items():
        print(f"\n### {name}, {result['tensors']} tensors, FP32 {result['fp32']}\n")
        print("| samples | " + " | ".join(map(str, result["samples"])) + " |")
        print("|---|" + "---|" * len(result["samples"]))
        for label, entry in result["methods"].items():
            for key in ("p90", "worst"):
                middle = np.median(entry[key], axis=0)
                print(f"| {label}: {key} | " + " | ".join(f"{value:.1%}" for value in middle) + " |")
            for metric in entry["metrics"][0][0]:
                mean = np.mean([[one[metric] for one in order] for order in entry["metrics"]], axis=0)
                print(f"| {label}: {metric} | " + " | ".join(f"{value:.4f}" for value in mean) + " |")


if __name__ == "__main__":
    main()
