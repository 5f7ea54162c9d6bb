"""Peak memory of calibrating ResNet-50 in a fresh process, with images that are made as they are asked for.

    python -m benchmarks.speed.memory TOOL MODEL SAMPLES BATCH DIMENSION...

measures by TOOL (ours, MinMax or Entropy of ONNX Runtime), and prints the largest memory, in bytes, that the process
has had: everything counts, Python and libraries too. 1 MB is 10**6 bytes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.speed import models
from benchmarks.speed.models import IMAGE, Feeds
from benchmarks.speed.onnxruntime_calibrators import collect_theirs
from benchmarks.speed.peak import peak_bytes
from benchmarks.speed.peer import ROOT, NotInstalledError, modelopt_process
from benchmarks.speed.speed_row import NOT_MEASURED, Row
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.data.open import open_data
from trt_ptq.onnx_io.load import load_model

OURS = "ours"
_SAMPLES = (16, 64, 256, 1024)
_PEER_SAMPLES = (16, 64)
_FLAT = 1.05
_MOST = 700_000_000


def single() -> list[Row]:
    """At batch 1: how flat, and how much."""
    peaks = _of_samples(OURS, 1)
    most = max(peaks.values())
    row = flat("ResNet-50, batch 1", peaks)
    limit = Row("peak memory, ResNet-50, batch 1", f"<= {_MOST / 1e6:.0f} MB", _megabytes([most]), most <= _MOST)
    return [row, limit]


def batched() -> list[Row]:
    """At batch 8: how flat."""
    return [flat("ResNet-50, batch 8", _of_samples(OURS, 8))]


def onnxruntime_peers() -> list[Row]:
    path = models.resnet50()
    return [
        _peer(f"ONNX Runtime {method}", partial(fresh_peak, method, path, batch=1)) for method in ("MinMax", "Entropy")
    ]


def modelopt_peers() -> Row:
    return _peer("modelopt quantize, entropy", partial(_modelopt_peak, "entropy"))


def flat(what: str, peaks: Mapping[int, int]) -> Row:
    """Whether `peaks`, in bytes by number of samples, stay within 5 %."""
    spread = max(peaks.values()) / min(peaks.values())
    return Row(
        what=f"peak memory, {what}, {min(peaks)} to {max(peaks)} images",
        target="flat within 5 %",
        measured=f"{_megabytes(peaks.values())}: {spread - 1:.1%}",
        met=spread <= _FLAT,
        figures={"bytes_by_samples": dict(peaks)},
    )


def fresh_peak(tool: str, model: Path, samples: int, batch: int, shape: Sequence[int] = IMAGE) -> int:
    """Peak bytes of a new process in which `tool` takes `samples` samples of `shape`, `batch` at a time."""
    arguments = [tool, str(model), *map(str, (samples, batch, *shape))]
    command = [sys.executable, "-m", "benchmarks.speed.memory", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return int(done.stdout)


def main() -> None:
    tool, model = sys.argv[1], Path(sys.argv[2])
    samples, batch, *shape = map(int, sys.argv[3:])

    def made() -> Iterator[Feeds]:
        return (models.images(batch, seed, shape) for seed in range(samples // batch))

    if tool == OURS:
        loaded = load_model(model)
        collect_statistics(loaded, open_data(made, loaded.inputs), select_calibration_tensors(loaded))
    else:
        collect_theirs(tool, model, made())
    print(peak_bytes())


def _of_samples(tool: str, batch: int) -> dict[int, int]:
    path = models.resnet50()
    return {samples: fresh_peak(tool, path, samples, batch) for samples in _SAMPLES}


def _peer(name: str, measure: Callable[[int], int]) -> Row:
    what = f"peak memory of {name}, {' and '.join(map(str, _PEER_SAMPLES))} images, batch 1"
    try:
        peaks = {samples: measure(samples) for samples in _PEER_SAMPLES}
    except NotInstalledError as error:
        return Row(what, "", f"{NOT_MEASURED}{error}", None)
    return Row(what, "", _megabytes(peaks.values()), None, {"bytes_by_samples": peaks})


def _modelopt_peak(method: str, samples: int) -> int:
    with modelopt_process(models.resnet50()) as peer:
        return int(peer.quantize(method, samples, 1)["peak_bytes"])


def _megabytes(sizes: Iterable[int]) -> str:
    return ", ".join(f"{size / 1e6:.0f}" for size in sizes) + " MB"


if __name__ == "__main__":
    main()
