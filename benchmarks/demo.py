"""`make demo`: a real text recogniser becomes a checked INT8 model and a TensorRT-RTX engine, from rendered lines."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.models import recogniser
from benchmarks.models.recogniser import Feeds

OUT = Path("demo")
LINES = 200
ARGUMENTS = [
    "--data",
    "benchmarks/models/recogniser.py:calibration",
    "--eval",
    "benchmarks/demo.py:accuracy",
    "--max-drop",
    "1%",
    "--technique",
    "none",  # they bring nothing to this model, and take minutes
    "--shape",
    "x=1x3x48x160:8x3x48x320:16x3x48x640",
    "--out",
    str(OUT),
]


def accuracy(run: Callable[[Feeds], Feeds], split: str) -> dict[str, float]:
    """Layers are selected on 200 lines, and the verdict is on 200 others; neither calibrates."""
    evaluate = recogniser.validation if split == "select" else recogniser.evaluate
    return {"character_accuracy": evaluate(run, samples=LINES)["character_accuracy"]}


def main() -> int:
    """Run the command that a user would type; its exit status."""
    model = recogniser.model()
    print(f"PP-OCRv4 text recogniser: 320 rendered lines calibrate, {LINES} select layers, {LINES} others judge.\n")
    print(f"$ trt-ptq quantize {model} {' '.join(ARGUMENTS)}\n", flush=True)
    command = [sys.executable, "-m", "trt_ptq", "quantize", str(model), *ARGUMENTS]
    start = time.perf_counter()
    status = subprocess.run(command, check=False).returncode
    print(f"\n{time.perf_counter() - start:.0f} seconds. Everything is in {OUT}/:")
    for path in sorted(OUT.iterdir()) if status in (0, 3) else ():
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path}")
    return status


if __name__ == "__main__":
    sys.exit(main())
