"""trt-ptq lint: problems of a Q/DQ model."""

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

_ROWS = 5  # of each rule; --json lists all
_FAILED = 3


def lint(
    model: Annotated[Path, typer.Argument(help="Q/DQ model, of any tool.", show_default=False)],
    stats: Annotated[
        Optional[Path],
        typer.Option(
            help="Statistics of its float model, to find ranges far larger than the activations.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Find what TensorRT rejects, computes wrongly or runs slowly in a Q/DQ model.

    Errors are what TensorRT rejects or computes wrongly; warnings cost speed or accuracy. Exit status 3 if there are
    errors.

    Example: trt-ptq lint model.int8.onnx --stats stats.safetensors
    """
    findings = lint_model(model, None if stats is None else load_statistics(stats))
    if json:
        console.print_json([asdict(finding) for finding in findings])
    else:
        if findings:
            _print(findings)
        counts = Counter(finding.severity for finding in findings)
        summary = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in sorted(counts.items()))
        console.say(f"{model}: {summary or 'no problems found'}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(_FAILED)


def _print(findings: list[Finding]) -> None:
    """Print a table of the nodes, errors first, and below it what each rule means."""
    ordered = sorted(
        findings, key=lambda finding: ("error", "warning", "note").index(finding.severity)
    )  # rules stay together
    rows: list[list[str]] = []
    meanings: list[str] = []
    for rule, group in groupby(ordered, key=lambda finding: finding.rule):
        of_rule = list(group)
        first = of_rule[0]
        rows += [[finding.node, finding.detail, finding.severity, rule] for finding in of_rule[:_ROWS]]
        if len(of_rule) > _ROWS:
            rows.append([f"... {len(of_rule) - _ROWS} more (--json)", "", first.severity, rule])
        meanings.append(f"{first.severity} {rule}: {first.effect}. Remedy: {first.remedy}.")
    console.print_table(["node", "detail", "severity", "rule"], rows)
    for meaning in meanings:
        console.say(meaning)
