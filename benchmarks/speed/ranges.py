"""From statistics to ranges: the entropy search, and a table from the statistics file of a large model."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector

from benchmarks.speed.speed_row import Row
from benchmarks.speed.turns import ROUNDS, in_turn, timed
from trt_ptq.calibrators.methods import METHODS, Entropy, RangeMethod
from trt_ptq.calibrators.statistics.histogram import Histogram
from trt_ptq.calibrators.statistics.kernels import BINS
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics, save_statistics
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.provenance import DataFingerprint, ModelIdentity

_SEARCHED = 2048
_LARGE = 1000
_MODEL = ModelIdentity("0" * 64, "0" * 64)
_DATA = DataFingerprint(1, "0" * 32)


def entropy_search(tensors: int = 100, rounds: int = ROUNDS) -> Row:
    """Milliseconds a tensor: searched one after the other, and in a table, which may search in parallel.

    Beside it ONNX Runtime's search with 2048 bins, which reach over both signs.
    """
    statistics = _statistics([_tensor(_SEARCHED + 1, seed) for seed in range(tensors)])  # the first bin is not searched
    signed = _signed(next(iter(statistics.tensors.values())))
    collector = HistogramCollector("entropy", False, _SEARCHED, 128, None, "same")
    seconds = in_turn(
        {
            "one_by_one": timed(lambda: [Entropy().amax(tensor) for tensor in statistics.tensors.values()]),
            "in_a_table": timed(partial(derive_table, statistics, Entropy())),
            "onnxruntime_one_tensor": timed(partial(collector.get_entropy_threshold, signed, 128)),
        },
        rounds,
    )
    one = 1000 * median(seconds["one_by_one"]) / tensors
    in_table = 1000 * median(seconds["in_a_table"]) / tensors
    theirs = 1000 * median(seconds["onnxruntime_one_tensor"])
    return Row(
        what=f"entropy search of {_SEARCHED} bins, a tensor (in a table of {tensors}; ONNX Runtime)",
        target="<= 1.5 ms",
        measured=f"{one:.2f} ms ({in_table:.2f}; {theirs:.0f})",
        met=one <= 1.5,
        figures={"one_by_one_ms": one, "in_a_table_ms": in_table, "onnxruntime_ms": theirs, "seconds": seconds},
    )


def large_statistics(tensors: int = _LARGE, rounds: int = ROUNDS) -> Row:
    """Seconds to open the statistics of `tensors` tensors and derive a table, by the slowest method."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stats.safetensors"
        save_statistics(
            _statistics([_tensor(_SEARCHED + 1 + seed * 2 % _SEARCHED, seed) for seed in range(tensors)]), path
        )
        seconds = in_turn(
            {name: timed(partial(_open_and_derive, path, method)) for name, method in METHODS.items()},
            rounds,
        )
        size = path.stat().st_size
    slowest = max(seconds, key=lambda name: median(seconds[name]))
    worst = median(seconds[slowest])
    return Row(
        what=f"opening statistics of {tensors} tensors and deriving a table, slowest method",
        target="< 1 s",
        measured=f"{worst:.2f} s ({slowest})",
        met=worst < 1,
        figures={"slowest": slowest, "file_bytes": size, "seconds": seconds},
    )


def _open_and_derive(path: Path, method: RangeMethod) -> CalibrationTable:
    return derive_table(load_statistics(path), method)


def _tensor(occupied: int, seed: int) -> TensorStatistics:
    """Half-normal magnitudes, of which the largest is between 3 and 6 sigma; none of the first bins is empty."""
    random = np.random.default_rng(seed)
    sigmas = np.linspace(0, random.uniform(3, 6), occupied)
    counts = np.zeros(BINS, np.int64)
    counts[:occupied] = 1 + random.poisson(10_000 * np.exp(-(sigmas**2) / 2))
    histogram = Histogram(0, counts)
    largest = occupied * histogram.bin_width
    return TensorStatistics(int(counts.sum()), 0, 0, -largest, largest, histogram)


def _statistics(tensors: list[TensorStatistics]) -> Statistics:
    return Statistics(_MODEL, _DATA, (), {f"tensor{index}": one for index, one in enumerate(tensors)})


def _signed(tensor: TensorStatistics) -> tuple[Any, Any, Any, Any]:
    """The histogram in ONNX Runtime's form, counts and edges of 2048 bins over both signs, and the range."""
    half = tensor.histogram.counts[:_SEARCHED].reshape(-1, 2).sum(axis=1)
    edges = np.linspace(tensor.minimum, tensor.maximum, _SEARCHED + 1, dtype=np.float32)
    return np.concatenate([half[::-1], half]), edges, edges[0], edges[-1]
