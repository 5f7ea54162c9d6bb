"""`make demo`: a real text recogniser becomes a checked INT8 model and a TensorRT-RTX engine, from rendered lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.models import recogniser
from benchmarks.models.recogniser import Feeds
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.report.schema import load_report

OUT = Path("demo")
LINES = 400
DATA = "benchmarks/models/recogniser.py"
ARGUMENTS = [
    "--data",
    f"{DATA}:calibration",
    "--eval",
    "benchmarks/demo.py:validation",
    "--shape",
    "x=1x3x48x160:8x3x48x320:16x3x48x640",
    "--technique",
    "none",  # they bring nothing to this model, and take minutes
    "--out",
    str(OUT),
]


def validation(run: Callable[[Feeds], Feeds]) -> dict[str, float]:
    """The metric that the result is chosen by."""
    return recogniser.validation(run, samples=LINES)


def main() -> int:
    """Run the command that a user would type, and show the character error rates; its exit status."""
    model = recogniser.model()
    print("PP-OCRv4 text recogniser; calibration and test lines are rendered anew and share no text.\n")
    print(f"$ trt-ptq quantize {model} {' '.join(ARGUMENTS)}\n", flush=True)
    command = [sys.executable, "-m", "trt_ptq", "quantize", str(model), *ARGUMENTS]
    status = subprocess.run(command, check=False).returncode
    if status in (0, 3):
        print(f"\nOn {LINES} other lines, which nothing was chosen by:")
        for one in load_report(OUT / "report.json").models:
            path = model if one.precision == "fp32" else OUT / one.file
            evaluate = partial(recogniser.evaluate, samples=LINES)
            metrics = UserMetric(evaluate, "recogniser").evaluate(path)
            print(f"character error rate {one.precision.upper()}: {1 - metrics['character_accuracy']:.4f}")
        for path in sorted(OUT.iterdir()):
            print(f"{path.stat().st_size / 1e6:9.2f} MB  {path}")
    return status


if __name__ == "__main__":
    sys.exit(main())
