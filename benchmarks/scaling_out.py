"""What calibrating on many machines costs beside inference: the figures of docs/scaling-out.md.

    python -m benchmarks.scaling_out [--json FILE]

Seconds are of one core's work (CPU time), which on a shared machine says more than the clock on the wall.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from benchmarks.environment import environment
from benchmarks.speed import models
from benchmarks.speed.turns import Job, in_turn, median_ratio
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import save_statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator, TensorStatistics
from trt_ptq.data.checks.audit import Audit
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.observation import observe
from trt_ptq.data.sources import ArraySource
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import session_options
from trt_ptq.provenance import DataFingerprint, ModelIdentity
from trt_ptq.types import Batch, BatchSource

SHARDS = 100
TENSORS = (60, 1000)
_BATCH = 8
_IMAGES = 32

Figures = dict[str, float]


def main() -> None:
    """Measure, print, and write as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    figures: Figures = {}
    measures: list[Callable[[], Figures]] = [partial(merging, tensors) for tensors in TENSORS]
    for measure in (*measures, guarding, working, starting):
        for name, value in measure().items():
            print(f"{name:45} {value:.4g}", flush=True)
            figures[name] = value
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": environment(), "figures": figures}, indent=2))


def merging(tensors: int) -> Figures:
    """`trt-ptq merge` of 100 shards, whole command."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{index:03}.safetensors" for index in range(SHARDS)]
        for index, statistics in enumerate(_shards(tensors)):
            save_statistics(statistics, files[index])
        command = [sys.executable, "-m", "trt_ptq", "merge", *map(str, files), "-o", f"{folder}/merged.safetensors"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"trt-ptq merge ended with {process.returncode}")
        return {
            f"file of {tensors} tensors, bytes": files[0].stat().st_size,
            f"merge of {SHARDS} x {tensors} tensors, CPU s": used.ru_utime + used.ru_stime,
            f"merge of {SHARDS} x {tensors} tensors, peak MB": used.ru_maxrss * 1024 / 1e6,
        }


def _shards(tensors: int) -> Iterator[Statistics]:
    """Statistics of normal values; each shard's histograms have other widths, so that merging has to fold them."""
    random = np.random.default_rng(0)
    measured: list[TensorStatistics] = []
    for exponent in range(7):
        accumulator = TensorAccumulator()
        accumulator.update(random.standard_normal(100_000, np.float32) * np.float32(2.0**exponent))
        measured.append(accumulator.statistics())
    for shard in range(SHARDS):
        yield Statistics(
            model=ModelIdentity("0" * 64, "0" * 64),
            data=DataFingerprint.from_feeds({"x": random.standard_normal((1, 2))}),
            tools=("onnxruntime", "trt_ptq"),
            tensors={f"/layer.{index}/Conv_output_0": measured[(shard + index) % 7] for index in range(tensors)},
        )


def guarding() -> Figures:
    """What is done with each image (float32 [3, 224, 224]) besides running the model."""
    batch = _pictures(_BATCH)
    audit = Audit()
    source = ArraySource("images", batch, _BATCH)
    checked = ValidatedSource(source, load_model(models.resnet50()).inputs)
    jobs: dict[str, Callable[[], object]] = {
        "fingerprint": partial(DataFingerprint.from_feeds, batch),
        "audit": partial(audit.observe, Batch(batch, "batch")),
        "check": partial(list, checked),
    }
    seconds = in_turn({name: _cpu(job) for name, job in jobs.items()}, rounds=15)
    return {f"{name}, CPU ms an image": median(taken) / _BATCH * 1e3 for name, taken in seconds.items()}


def working() -> Figures:
    """A worker with one thread: collecting from checked and audited batches, against plain inference of them."""
    model = load_model(models.resnet50())
    calibration_tensors = select_calibration_tensors(model)
    source = ArraySource("images", _pictures(_IMAGES), _BATCH)
    two = ArraySource("images", _pictures(2 * _BATCH), _BATCH)
    session = ort.InferenceSession(str(model.path), session_options(1), providers=["CPUExecutionProvider"])

    def infer(part: BatchSource) -> None:
        for batch in part:
            session.run(None, dict(batch.feeds))

    def work(part: BatchSource) -> None:
        collect_statistics(model, observe(ValidatedSource(part, model.inputs), Audit()), calibration_tensors, threads=1)

    jobs: dict[str, Job] = {
        f"{name} {size}": _cpu(partial(function, part))
        for size, part in (("all", source), ("two", two))
        for name, function in (("infer", infer), ("work", work))
    }
    seconds = in_turn(jobs)
    further = _IMAGES - 2 * _BATCH  # images beyond the first two batches, which make the session and the buffers
    taken = {
        name: [whole - start for whole, start in zip(seconds[f"{name} all"], seconds[f"{name} two"], strict=True)]
        for name in ("infer", "work")
    }
    return {
        "inference, one thread, CPU ms an image": median(taken["infer"]) / further * 1e3,
        "collecting, one thread, CPU ms an image": median(taken["work"]) / further * 1e3,
        "collecting / inference, one thread": median_ratio(taken["work"], taken["infer"]),
    }


def starting() -> Figures:
    """What each worker or shard does once: read ResNet-50, check it, and make its session."""
    path = models.resnet50()
    one = ArraySource("images", _pictures(1), 1)

    def session(model: Model) -> None:
        collect_statistics(model, one, select_calibration_tensors(model), threads=1)

    loaded = load_model(path)
    seconds = in_turn({"load": _cpu(partial(load_model, path)), "session": _cpu(partial(session, loaded))})
    return {
        "loading the model, CPU s": median(seconds["load"]),
        "session and first image, CPU s": median(seconds["session"]),
    }


def _pictures(samples: int) -> models.Feeds:
    """`x`: float32 [samples, 3, 224, 224], whose neighbouring values correlate: the audit looks longer at noise."""
    noise = models.images(samples)["x"]
    return {"x": noise + np.roll(noise, 1, axis=-1)}


def _cpu(function: Callable[[], object]) -> Job:
    """Seconds that all threads of this process work while `function` runs."""

    def job() -> float:
        start = time.process_time()
        function()
        return time.process_time() - start

    return job


if __name__ == "__main__":
    main()
