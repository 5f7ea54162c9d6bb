"""From a float ResNet-50 and 64 images to an INT8 Q/DQ file: modelopt's `quantize` against the same work of ours.

Ours: read the model, collect, derive the table, insert Q/DQ nodes, save. No comparison, no FP16 model, no engine, and
no report, which `trt-ptq quantize` makes besides and modelopt does not; that whole job is a row without a ratio.
Both processes are warm (packages imported, loops compiled), and both take batches of 8.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.speed import models
from benchmarks.speed.collecting import in_memory
from benchmarks.speed.models import Feeds
from benchmarks.speed.peer import PYTHON, NotInstalledError, modelopt_process
from benchmarks.speed.speed_row import NOT_MEASURED, Row
from benchmarks.speed.turns import ROUNDS, in_turn, median_ratio, timed
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.config import QuantizeConfig
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.pipeline import quantize
from trt_ptq.qdq.insert import insert_qdq

_SAMPLES = 64
_BATCH = 8


def entropy() -> Row:
    return against_modelopt("entropy", "entropy", 4, models.resnet50(), _images())


def maximum() -> Row:
    return against_modelopt("max", "minmax", None, models.resnet50(), _images())


def against_modelopt(
    theirs: str,
    ours: str,
    target: float | None,
    path: Path,
    batches: Sequence[Feeds],
    rounds: int = ROUNDS,
    python: Path = PYTHON,
) -> Row:
    """How many times as long as ours modelopt takes; `theirs` and `ours` are the methods' names."""
    samples = _samples(batches)
    what = f"modelopt quantize, {theirs} / ours to the Q/DQ file, {samples} images"
    reached = "" if target is None else f">= {target:g} x"
    try:
        with modelopt_process(path, python) as peer, tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "int8.onnx"
            # Warms both, too.
            inserted = {"ours": quantize_ours(path, batches, ours, result)}
            inserted["theirs"] = peer.quantize(theirs, _BATCH, _BATCH)["dequantize_nodes"]
            seconds = in_turn(
                {
                    "ours": timed(partial(quantize_ours, path, batches, ours, result)),
                    "theirs": lambda: float(peer.quantize(theirs, samples, _BATCH)["seconds"]),
                },
                rounds,
                warm=True,
            )
            versions = peer.versions
    except NotInstalledError as error:
        return Row(what, reached, f"{NOT_MEASURED}{error}", None)
    ratio = median_ratio(seconds["theirs"], seconds["ours"])
    return Row(
        what=what,
        target=reached,
        measured=f"{ratio:.1f} x ({median(seconds['theirs']):.1f} s / {median(seconds['ours']):.1f} s)",
        met=None if target is None else ratio >= target,
        figures={
            "ratio": ratio,
            "samples": samples,
            "dequantize_nodes": inserted,
            "versions": versions,
            "seconds": seconds,
        },
    )


def quantize_ours(path: Path, batches: Sequence[Feeds], method: str, result: Path) -> int:
    """What modelopt's `quantize` does, by trt_ptq; how many DequantizeLinear nodes that took."""
    model = load_model(path)
    statistics = collect_statistics(model, in_memory(batches), select_calibration_tensors(model))
    converted = insert_qdq(model, derive_table(statistics, METHODS[method])).model
    save_model(converted, result)
    return sum(node.op_type == "DequantizeLinear" for node in converted.graph)


def whole_job() -> Row:
    return whole("ResNet-50", models.resnet50(), _images())


def whole(name: str, path: Path, batches: Sequence[Feeds]) -> Row:
    """Seconds of everything that `trt-ptq quantize` does: one run, no peer."""
    with tempfile.TemporaryDirectory() as folder:
        config = QuantizeConfig(method="entropy")
        seconds = timed(partial(quantize, path, in_memory(batches), output_dir=folder, config=config))()
        left = sorted(file.name for file in Path(folder).iterdir())
    return Row(
        what=f"all of trt-ptq quantize, {name}, {_samples(batches)} images: also FP16, comparison, engines, report",
        target="",
        measured=f"{seconds:.0f} s",
        met=None,
        figures={"seconds": seconds, "files": left},
    )


def _images() -> list[Feeds]:
    return [models.images(_BATCH, seed) for seed in range(_SAMPLES // _BATCH)]


def _samples(batches: Sequence[Feeds]) -> int:
    return sum(len(feeds["x"]) for feeds in batches)
