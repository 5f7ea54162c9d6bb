"""Who quantizes: each maker makes an INT8 model from a float model and its calibration data."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import ours
from benchmarks.accuracy.cases import CASES, Feeds, calibration_batches, count_samples
from benchmarks.accuracy.onnxruntime_static import MATRIX_OPS, quantize_theirs
from benchmarks.speed.peer import PYTHON, ROOT
from trt_ptq.errors import TrtPtqError


@dataclass(frozen=True)
class Made:
    """Seconds of quantizing alone, without reading data or starting Python; how many samples calibrated."""

    seconds: float
    samples: int
    note: str = ""


Make = Callable[[str, Path], Made]  # a model's name, the file to write


def _timed(function: Callable[[str, list[Feeds], Path], str | None], name: str, result: Path) -> Made:
    batches = calibration_batches(name)
    start = time.perf_counter()
    note = function(name, batches, result)
    return Made(time.perf_counter() - start, count_samples(batches), note or "")


def _onnxruntime(method: str, operators: tuple[str, ...]) -> Make:
    def make(name: str, batches: list[Feeds], result: Path) -> str:
        return quantize_theirs(CASES[name].model(), batches, method, operators, result)

    return partial(_timed, make)


def _modelopt(method: str) -> Make:
    def make(name: str, result: Path) -> Made:
        if not PYTHON.exists():
            raise TrtPtqError(f"modelopt is not installed: no {PYTHON}, which `make bench` makes")
        batches = calibration_batches(name)
        with tempfile.TemporaryDirectory() as folder:
            for number, feeds in enumerate(batches):
                arrays: dict[str, Any] = feeds
                np.savez(Path(folder) / f"{number}.npz", **arrays)
            script = ROOT / "benchmarks" / "accuracy" / "modelopt_once.py"
            command = [PYTHON, script, CASES[name].model(), folder, method, result]
            done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise TrtPtqError(f"exit status {done.returncode}: {lines[-1]}")
        return Made(float(Path(f"{result}.seconds").read_text()), count_samples(batches))

    return make


MAKERS: dict[str, Make] = {
    "ours-1%": partial(_timed, partial(ours.within, 0.01)),
    "onnxruntime-minmax-matrix": _onnxruntime("MinMax", MATRIX_OPS),
    "onnxruntime-percentile-matrix": _onnxruntime("Percentile", MATRIX_OPS),
    "modelopt-max": _modelopt("max"),
    "ours-plain": partial(_timed, ours.plain),
    "modelopt-entropy": _modelopt("entropy"),
    "onnxruntime-entropy-matrix": _onnxruntime("Entropy", MATRIX_OPS),
    **{f"onnxruntime-{method.lower()}-all": _onnxruntime(method, ()) for method in ("MinMax", "Percentile", "Entropy")},
    "ours-0.5%": partial(_timed, partial(ours.within, 0.005)),
}
