"""Measure whole runs of `quantize`: counts, seconds in P, and peak memory by phase.

    python -m benchmarks.job [JOB ...] [--limit MINUTES]

P is one pass of FP32 on ONNX Runtime, as it is by default, over all data: for calibration, for comparison, and of the
metric. Rows that are up to date are read from benchmarks/results/job.json; see `python -m benchmarks`. No engines are
built.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.job.job_rows import JOBS
from benchmarks.job.job_table import job_table, phase_table
from benchmarks.results_file import FAILED, ResultsFile


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.job", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", choices=[*JOBS, []], help=", ".join(JOBS))
    parser.add_argument("--limit", type=float, default=20, metavar="MINUTES", help="for all of them (default: 20)")
    arguments = parser.parse_args()
    rows = [f"job/{name}" for name in arguments.jobs or JOBS]
    limits = ["--limit", str(arguments.limit), "--row-limit", str(60 * arguments.limit)]
    subprocess.run([sys.executable, "-m", "benchmarks", *rows, *limits], check=True)
    figures = {name: job for name, job in ResultsFile("job").figures.items() if f"job/{name}" in rows}
    print("\n" + "\n".join(job_table(figures)))
    for name, job in figures.items():
        if FAILED not in job:
            print(f"\n{name}\n" + "\n".join(phase_table(job)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
