"""Lint findings in the form that tests compare."""

from __future__ import annotations

from pathlib import Path

from trt_ptq.lint.linter import lint_model


def found(path: Path) -> list[tuple[str, str, str, str]]:
    """Severity, rule, node and detail."""
    return [(finding.severity, finding.rule, finding.node, finding.detail) for finding in lint_model(path)]


def rules(path: Path) -> list[str]:
    """The ids of the violated rules."""
    return [finding.rule for finding in lint_model(path)]
