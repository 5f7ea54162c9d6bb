"""Measure the accuracy of INT8 models, write each row as soon as it is measured, print as Markdown.

    python -m benchmarks.accuracy [--models recogniser ...] [--only ours-plain ...] [--json FILE]

All rows of a model use the same calibration data and the same test data, on the same ONNX Runtime CPU provider. No test
sample is used for calibration. Rows in FILE are not measured again without --again; each names its commit.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.accuracy.cases import CASES
from benchmarks.accuracy.row import Row, measure, measure_float
from benchmarks.accuracy.rows import ROWS
from benchmarks.accuracy.table import markdown
from benchmarks.environment import commit, environment
from benchmarks.models.wheels import write_atomically

FP32 = "fp32"
LIMIT = 900  # seconds
Results = dict[str, dict[str, Row]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description="Compare INT8 with peers'.")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--again", action="store_true", help="also measure the rows that FILE has already")
    parser.add_argument("--limit", type=float, default=LIMIT, help="time limit in seconds for one model")
    arguments = parser.parse_args()
    results = read(arguments.json) if arguments.json else {}
    for name in arguments.models:
        rows = results.setdefault(name, {})
        for label in (FP32, *arguments.only):
            if label not in rows or (arguments.again and label != FP32):
                print(f"{name}: {label} ...", flush=True)
                row = measure_float(name) if label == FP32 else measure(name, label, rows[FP32], arguments.limit)
                rows[label] = replace(row, commit=commit())
                if arguments.json:
                    write(results, arguments.json)
    for name, rows in results.items():
        ordered = {label: rows[label] for label in (FP32, *ROWS) if label in rows}
        print(f"\n{markdown(name, ordered)}", flush=True)


def read(path: Path) -> Results:
    """The rows of an earlier run; none without the file."""
    if not path.exists():
        return {}
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    return {name: {label: Row(**row) for label, row in rows.items()} for name, rows in models.items()}


def write(results: Results, path: Path) -> None:
    models = {name: {label: asdict(row) for label, row in rows.items()} for name, rows in results.items()}
    content = {"command": "python -m benchmarks.accuracy", "environment": environment(), "models": models}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
