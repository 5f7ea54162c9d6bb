"""trt-ptq lint"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.cli import console, options
from trt_ptq.lint.finding import Finding
from trt_ptq.lint.linter import lint_model

_ROWS = 5  # of each rule, for people; --json has all
_FAILED = 3


def lint(
    model: Annotated[
        Path, typer.Argument(help="A Q/DQ model: ours, ONNX Runtime's, modelopt's, torch's.", show_default=False)
    ],
    stats: Annotated[
        Optional[Path],
        typer.Option(help="Statistics of its float model: finds ranges far beyond the data's.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Look for what TensorRT would refuse, get wrong or run slowly in a Q/DQ model. Exit status 3 if there are errors.

    An error: TensorRT refuses the model, or the numbers are wrong. A warning: slower or less accurate.

    Example: trt-ptq lint model.int8.onnx --stats stats.safetensors
    """
    findings = lint_model(model, None if stats is None else load_statistics(stats))
    if json:
        console.print_json([asdict(finding) for finding in findings])
    else:
        if findings:
            _print(findings)
        counts = Counter(finding.severity for finding in findings)
        told = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in sorted(counts.items()))
        console.say(f"{model}: {told or 'nothing suspicious'}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(_FAILED)


def _print(findings: list[Finding]) -> None:
    """A table of the nodes, and below it what each rule means; errors first."""
    ordered = sorted(findings, key=lambda one: ("error", "warning", "note").index(one.severity))  # rules stay together
    rows: list[list[str]] = []
    meanings: list[str] = []
    for rule, group in groupby(ordered, key=lambda one: one.rule):
        found = list(group)
        first = found[0]
        rows += [[one.node, one.detail, one.severity, rule] for one in found[:_ROWS]]
        if len(found) > _ROWS:
            rows.append([f"... and {len(found) - _ROWS} more (--json has all)", "", first.severity, rule])
        meanings.append(f"{first.severity} {rule}: {first.effect}. Remedy: {first.remedy}.")
    console.print_table(["node", "detail", "severity", "rule"], rows)
    for meaning in meanings:
        console.say(meaning)
