"""How many samples are enough: ranges and task metric of four real models against the number of calibration samples.

    python -m benchmarks.number_of_samples [--json FILE] [--models recogniser magika] [--orders 2]

The samples are shuffled anew for each order; distances are to the ranges of all samples. INT8 models run on ONNX
Runtime's CPU, in the first order only.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import MODELS
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.convergence import Convergence, relative_change
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS, RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics, merge_statistics
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import Batch, Feeds, sample_count

COUNTS = (8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2000)
JUDGED = (8, 128)  # and all
TOLERANCES = (0.01, 0.02, 0.05)
MOST = {"recogniser": 2000, "detector": 256, "magika": 1000, "minilm": 1000}  # samples to calibrate with
TESTED = {"recogniser": 200, "detector": 24, "magika": 400, "minilm": 300}  # samples of the metric


@dataclass(frozen=True)
class Samples:
    """Samples from memory, one a batch."""

    feeds: Sequence[Feeds]

    @property
    def total(self) -> int | None:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Batch]:
        for number, feeds in enumerate(self.feeds):
            yield Batch(feeds, f"sample {number}")


def measure(name: str, orders: int) -> dict[str, Any]:
    """Distances of the ranges, where the rule of --until-stable stops, and the metric, by method."""
    module = MODELS[name]
    model = load_model(module.model())
    samples = [
        {key: array[index : index + 1] for key, array in feeds.items()}
        for feeds in module.calibration(samples=MOST[name])
        for index in range(sample_count(feeds))
    ]
    result: dict[str, Any] = {"orders": []}
    judged = {}
    for order in range(orders):
        random.Random(order).shuffle(samples)
        convergence = Convergence(list(METHODS.values()))
        for statistics in _growing(model, samples):
            count = statistics.data.samples
            convergence.record(count, statistics.tensors)
            if order == 0 and (count in JUDGED or count == len(samples)):
                judged[count] = statistics
        result["orders"].append({label: _settling(convergence, index) for index, label in enumerate(METHODS)})
    trajectory = convergence.trajectory()
    result["samples"] = trajectory.samples
    result["tensors"] = len(statistics.tensors)
    result["slowest"] = {label: list(one.slowest) for label, one in zip(METHODS, trajectory.methods, strict=True)}
    _print_ranges(name, result)
    evaluate = partial(module.evaluate, samples=TESTED[name])
    result["fp32"] = UserMetric(evaluate, name).evaluate(model.path)
    result["metrics"] = {
        count: {label: _metric(name, evaluate, model, statistics, method) for label, method in METHODS.items()}
        for count, statistics in judged.items()
    }
    _print_metrics(result)
    return result


def _growing(model: Model, samples: Sequence[Feeds]) -> Iterator[Statistics]:
    """Statistics of the first 8, 11, 16, … samples."""
    calibration_tensors = select_calibration_tensors(model)
    grown: list[Statistics] = []
    counts = [count for count in COUNTS if count < len(samples)] + [len(samples)]
    for start, stop in zip([0, *counts], counts, strict=False):
        grown = [
            merge_statistics([*grown, collect_statistics(model, Samples(samples[start:stop]), calibration_tensors)])
        ]
        yield grown[0]


def _settling(convergence: Convergence, index: int) -> dict[str, Any]:
    """Of one method: distances to the final ranges, and after how many samples the rule stops, at what distances."""
    method = convergence.methods[index]
    taken = {
        int(count): {name: [row[index]] for name, row in rows.items()} for count, rows in convergence.ranges.items()
    }
    counts = sorted(taken)
    ranges = np.array([[taken[count][tensor] for tensor in taken[counts[-1]]] for count in counts])[:, :, 0]
    distances = relative_change(ranges, ranges[-1])
    stops = {}
    for tolerance in TOLERANCES:
        for row, count in enumerate(counts):
            replayed = Convergence([method], tolerance)
            replayed.restore({str(one): taken[one] for one in counts[: row + 1]})
            if replayed.stability().stable:
                stops[str(tolerance)] = [count, float(np.percentile(distances[row], 90)), float(distances[row].max())]
                break
    return {
        "p90": np.percentile(distances, 90, axis=1).tolist(),
        "worst": distances.max(axis=1).tolist(),
        "stops": stops,
    }


def _metric(name: str, evaluate: Any, model: Model, statistics: Statistics, method: RangeMethod) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        save_model(insert_qdq(model, derive_table(statistics, method)).model, path)
        return UserMetric(evaluate, name).evaluate(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--orders", type=int, default=2, help="random orders of the samples")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name in arguments.models:
        results[name] = measure(name, arguments.orders)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _print_ranges(name: str, result: dict[str, Any]) -> None:
    """As Markdown: medians over the orders, and for each order where the rule stops (distances there: 90 %, all)."""
    print(f"\n### {name}, {result['tensors']} tensors\n")
    shown = range(len(result["samples"]) - 1, -1, -2)[::-1]
    print("| samples | " + " | ".join(str(result["samples"][row]) for row in shown) + " |")
    print("|---|" + "---|" * len(shown))
    for label in METHODS:
        for key in ("p90", "worst"):
            middle = np.median([order[label][key] for order in result["orders"]], axis=0)
            print(f"| {label}: {key} | " + " | ".join(f"{middle[row]:.1%}" for row in shown) + " |")
    print("\n| method | " + " | ".join(f"until stable {tolerance:.0%}" for tolerance in TOLERANCES) + " |")
    print("|---|" + "---|" * len(TOLERANCES))
    for label in METHODS:
        cells = []
        for tolerance in TOLERANCES:
            stops = [order[label]["stops"].get(str(tolerance)) for order in result["orders"]]
            cells.append("; ".join(f"{one[0]} ({one[1]:.1%}, {one[2]:.1%})" if one else "never" for one in stops))
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def _print_metrics(result: dict[str, Any]) -> None:
    print(f"\nFP32: {result['fp32']}")
    print("\n| metric by samples | " + " | ".join(map(str, result["metrics"])) + " |")
    print("|---|" + "---|" * len(result["metrics"]))
    for label in METHODS:
        for metric in result["fp32"]:
            cells = [f"{judged[label][metric]:.4f}" for judged in result["metrics"].values()]
            print(f"| {label}: {metric} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
