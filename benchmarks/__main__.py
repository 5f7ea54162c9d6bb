"""Measure the rows of the benchmarks that are not up to date, and write docs/benchmarks.md.

    python -m benchmarks [ROW ...] [--limit MINUTES] [--row-limit SECONDS] [--again] [--list]

A row is named suite/row; patterns with * and ? select several. Each row runs in a process of its own and is kept in
benchmarks/results as soon as it is measured, so an interrupted run resumes. A row of trt_ptq is measured again when its
code has changed, a row of a peer only with --again. Rows that do not fit into the time limit are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import methods, page, plans
from benchmarks.accuracy.accuracy_rows import accuracy_rows
from benchmarks.job.job_rows import job_rows
from benchmarks.language_models.lm_rows import lm_rows
from benchmarks.results_file import FAILED, ROOT, Figures, ResultsFile, RowSpec, code_version
from benchmarks.speed.speed_rows import speed_rows


def all_rows() -> list[RowSpec]:
    """Every row, in the order in which they are measured."""
    return [
        *accuracy_rows(),
        *job_rows(),
        *speed_rows(),
        *methods.method_rows(),
        *plans.plan_rows(),
        *lm_rows(),
    ]


def selected_rows(patterns: Sequence[str]) -> list[RowSpec]:
    """The rows that one of `patterns` names; all without any.

    Raises:
        SystemExit: a pattern names no row.
    """
    rows = all_rows()
    for pattern in patterns:
        if not any(fnmatch(row.full_name, pattern) for row in rows):
            sys.exit(f"no row is named {pattern}: see python -m benchmarks --list")
    return [row for row in rows if not patterns or any(fnmatch(row.full_name, pattern) for pattern in patterns)]


def measure_apart(row: RowSpec, earlier: Mapping[str, Figures], limit: float) -> Figures:
    """The figures of `row`, measured in a process of its own; `failed` says why there are none.

    Args:
        row: the row.
        earlier: the figures of the suite's earlier rows.
        limit: seconds after which the process is killed.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        exchange = Path(folder) / "row.json"
        exchange.write_text(json.dumps(earlier), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", row.full_name, "--in-process", str(exchange)],
            cwd=folder,  # ONNX Runtime leaves files where it runs
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return {FAILED: f"not ready after {limit:.0f} s"}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.wait()
        if status:
            log.seek(0)
            last = (log.read().strip().splitlines() or ["no message"])[-1]
            return {FAILED: f"exit status {status}: {last}"}
        measured: Figures = json.loads(exchange.read_text(encoding="utf-8"))
        return measured


def measure_here(row: RowSpec, exchange: Path) -> None:
    """Read the figures of earlier rows from `exchange`, and replace them by those of `row`."""
    figures = row.measure(json.loads(exchange.read_text(encoding="utf-8")))
    exchange.write_text(json.dumps(figures), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--limit", type=float, default=60, metavar="MINUTES", help="for the whole run (default: 60)")
    parser.add_argument("--row-limit", type=float, default=300, metavar="SECONDS", help="for a row (default: 300)")
    parser.add_argument("--again", action="store_true", help="also measure rows that are up to date")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = selected_rows(arguments.rows)
    if arguments.in_process:
        return measure_here(rows[0], arguments.in_process)
    if arguments.list:
        print("\n".join(row.full_name for row in rows))
        return None
    deadline, code = time.monotonic() + 60 * arguments.limit, code_version()
    for row in rows:
        results = ResultsFile(row.suite)
        if results.has(row, code) and not arguments.again:
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            print(f"{row.full_name}: left out, no time", flush=True)
            continue
        print(f"{row.full_name} ...", flush=True)
        figures = measure_apart(row, results.figures, min(left, arguments.row_limit))
        if FAILED in figures:
            print(f"  failed: {figures[FAILED]}", flush=True)
        results.add(row.name, figures, code)
    page.PAGE.write_text(page.page(), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
