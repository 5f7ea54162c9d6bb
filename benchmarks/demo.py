"""`make demo`: a real text recogniser becomes a checked INT8 model and a TensorRT-RTX engine, from rendered lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.models import recogniser
from trt_ptq.report.schema import read_report

OUT = Path("demo")
DATA = "benchmarks/models/recogniser.py"
ARGUMENTS = [
    "--data",
    f"{DATA}:calibration",
    "--eval",
    f"{DATA}:evaluate",
    "--shape",
    "x=1x3x48x160:8x3x48x320:16x3x48x640",
    "--out",
    str(OUT),
]


def main() -> int:
    """Run the command that a user would type, and show the character error rates; its exit status."""
    model = recogniser.model()
    print("PP-OCRv4 text recogniser; calibration and test lines are rendered anew and share no text.\n")
    print(f"$ trt-ptq quantize {model} {' '.join(ARGUMENTS)}\n", flush=True)
    command = [sys.executable, "-m", "trt_ptq", "quantize", str(model), *ARGUMENTS]
    status = subprocess.run(command, check=False).returncode
    if status in (0, 3):
        report = read_report(OUT / "report.json")
        for one in report.models:
            error_rate = 1 - one.metrics["character_accuracy"]
            print(f"character error rate {one.precision.upper()}: {error_rate:.4f}")
        for path in sorted(OUT.iterdir()):
            print(f"{path.stat().st_size / 1e6:9.2f} MB  {path}")
    return status


if __name__ == "__main__":
    sys.exit(main())
