"""`make demo`: a real text recogniser becomes a checked INT8 model and a TensorRT-RTX engine, from rendered lines."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.models import recogniser
from benchmarks.models.recogniser import Feeds
from trt_ptq.engines.plans.plan_file import load_plan, plan_path
from trt_ptq.output import ENGINES, REPORT_PAGE
from trt_ptq.report.schema import Report, load_report

OUT = Path("demo")
CALIBRATING, SELECTING, JUDGING = 160, 160, 200  # lines: few, so that nobody waits long
METRIC = "character_accuracy"
ARGUMENTS = [
    "--data",
    "benchmarks/demo.py:calibration",
    "--eval",
    "benchmarks/demo.py:accuracy",
    "--max-drop",
    "1%",
    "--technique",
    "none",  # they bring nothing to this model
    "--shape",
    "x=1x3x48x160:8x3x48x320:16x3x48x640",
    "--out",
    str(OUT),
]


def calibration() -> Iterator[Feeds]:
    """Batches of rendered lines."""
    return recogniser.calibration(samples=CALIBRATING)


def accuracy(run: Callable[[Feeds], Feeds], split: str) -> dict[str, float]:
    """Layers are selected on some lines, and the verdict is on others; neither calibrates."""
    if split == "select":
        return {METRIC: recogniser.validation(run, samples=SELECTING)[METRIC]}
    return {METRIC: recogniser.evaluate(run, samples=JUDGING)[METRIC]}


def summary(report: Report, out: Path) -> Iterator[str]:
    """What INT8 costs and brings, in a few lines."""
    models = {model.precision: model for model in report.models}
    engines = {engine.precision: engine.size_bytes for engine in report.engines}
    yield "".join(f"{head:>12}" for head in ("", *(precision.upper() for precision in models)))
    errors = [f"{1 - model.metrics[METRIC]:.2%}" if METRIC in model.metrics else "" for model in models.values()]
    yield f"{'wrong':>12}" + "".join(f"{error:>12}" for error in errors)
    yield f"{'ONNX':>12}" + "".join(f"{model.size_bytes / 1e6:>9.1f} MB" for model in models.values())
    if engines:
        sizes = [f"{engines[precision] / 1e6:.1f} MB" if precision in engines else "" for precision in models]
        yield f"{'engine':>12}" + "".join(f"{size:>12}" for size in sizes)
    plain = next(trial for trial in report.trials if trial.decision == "baseline")
    accepted = [trial for trial in report.trials if trial.decision == "accepted" and trial.losses]
    yield ""
    yield f"On the lines for selection, plain INT8 lost {max(plain.losses.values()):.2%} of what FP32 reads."
    for trial in accepted:
        yield f"Tuning, {trial.name}: {max(trial.losses.values()):.2%}."
    yield from _plans(out)
    yield f"Everything is in {out}/: open {out / REPORT_PAGE}."


def _plans(out: Path) -> Iterator[str]:
    """How much the engines move; nothing where none was built, or its plan could not be read."""
    files = {precision: plan_path(out / name) for precision, name in ENGINES.items()}
    if not all(path.exists() for path in files.values()):
        return
    plans = {precision: load_plan(path) for precision, path in files.items()}
    int8, fp16 = plans["int8"], plans["fp16"]
    ratio = int8.bytes_moved / fp16.bytes_moved
    yield (
        f"The INT8 engine runs {int8.num_kernels} kernels, which move {ratio:.2f} times the bytes of the "
        f"{fp16.num_kernels} of the FP16 engine: `trt-ptq plan {out / ENGINES['int8']}` lists them."
    )


def main() -> int:
    """Run the command that a user would type; its exit status."""
    start = time.perf_counter()
    model = recogniser.model()
    print(
        f"PP-OCRv4 text recogniser: {CALIBRATING} rendered lines calibrate, {SELECTING} others select the layers that "
        f"are excluded, {JUDGING} others judge. Few, for a quick demonstration.\n"
    )
    print(f"$ trt-ptq quantize {model} {' '.join(ARGUMENTS)}\n", flush=True)
    command = [sys.executable, "-m", "trt_ptq", "quantize", str(model), *ARGUMENTS]
    status = subprocess.run(command, check=False).returncode
    if status in (0, 3):
        print(f"\nCharacters that are wrong, on the {JUDGING} lines that nothing was selected by, and sizes:\n")
        print("\n".join(summary(load_report(OUT), OUT)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{time.perf_counter() - start:.0f} seconds, {peak / 1e9:.1f} GB at most.")
    return status


if __name__ == "__main__":
    sys.exit(main())
