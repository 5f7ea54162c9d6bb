"""Our collecting against ONNX Runtime's calibrators: the same ResNet-50, tensors, batches and library.

Counted on both sides is everything from the model file to what ranges are searched in: reading the model, choosing
tensors, making the session, running it, counting. The search is a row of its own (`ranges.py`).
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

from benchmarks.speed import models
from benchmarks.speed.collecting import OPERATORS, in_memory, operator_tensors
from benchmarks.speed.models import Feeds
from benchmarks.speed.speed_row import Row
from benchmarks.speed.turns import ROUNDS, in_turn, median_ratio, timed
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.errors import TrtPtqError
from trt_ptq.onnx_io.load import load_model

BINS = 2048
_BATCHES = 4  # of 8 images: every activation is kept, about 108 MB an image


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds in the form that ONNX Runtime asks for."""

    def __init__(self, batches: Iterable[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)


def minmax() -> Row:
    return against_calibrator("MinMax", None, models.resnet50(), _images())


def entropy() -> Row:
    return against_calibrator("Entropy", 4, models.resnet50(), _images())


def percentile() -> Row:
    return against_calibrator("Percentile", 4, models.resnet50(), _images())


def against_calibrator(
    method: str, target: float | None, path: Path, batches: Sequence[Feeds], rounds: int = ROUNDS
) -> Row:
    """How many times as long as ours the calibrator `method` takes, on the tensors that it takes.

    Raises:
        TrtPtqError: it measured other tensors than ours.
    """
    theirs = collect_theirs(method, path, batches)
    ours = collect_ours(path, batches)
    if theirs != ours:
        raise TrtPtqError(f"ONNX Runtime {method} measures other tensors: {sorted(theirs ^ ours)}")
    seconds = in_turn(
        {
            "ours": timed(partial(collect_ours, path, batches)),
            "theirs": timed(partial(collect_theirs, method, path, batches)),
        },
        rounds,
    )
    ratio = median_ratio(seconds["theirs"], seconds["ours"])
    samples = sum(len(next(iter(feeds.values()))) for feeds in batches)
    return Row(
        what=f"ONNX Runtime {method} / ours, {samples} images, the same {len(ours)} tensors",
        target="" if target is None else f">= {target:g} x",
        measured=f"{ratio:.1f} x",
        met=None if target is None else ratio >= target,
        figures={"ratio": ratio, "samples": samples, "tensors": len(ours), "seconds": seconds},
    )


def collect_ours(path: Path, batches: Iterable[Feeds]) -> set[str]:
    """Histograms of all tensors; their names."""
    model = load_model(path)
    calibration_tensors = select_calibration_tensors(model, operator_tensors(model))
    return set(collect_statistics(model, in_memory(batches), calibration_tensors).tensors)


def collect_theirs(method: str, path: Path, batches: Iterable[Feeds]) -> set[str]:
    """Ranges or histograms of all tensors, `BINS` bins; their names."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        calibrator: Any = create_calibrator(
            path,
            OPERATORS,
            str(Path(folder) / "augmented.onnx"),
            CalibrationMethod[method],
            extra_options={"num_bins": BINS},
        )
        calibrator.collect_data(Reader(batches))
        if method == "MinMax":
            return set(calibrator.compute_data().keys())
        return set(calibrator.collector.histogram_dict)


def _images() -> list[Feeds]:
    return [models.images(8, seed) for seed in range(_BATCHES)]
