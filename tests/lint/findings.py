"""What lint says, in the form that tests compare."""

from __future__ import annotations

from pathlib import Path

from trt_ptq.lint.linter import lint_model


def found(path: Path) -> list[tuple[str, str, str, str]]:
    """Severity, rule, node and what was found."""
    return [(one.severity, one.rule, one.node, one.detail) for one in lint_model(path)]


def rules(path: Path) -> list[str]:
    """The rules alone."""
    return [one.rule for one in lint_model(path)]
