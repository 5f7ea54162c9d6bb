"""Rows of the benchmarks, and the files in benchmarks/results that keep them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import commit, environment
from benchmarks.models.wheels import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PRODUCT = ("trt_ptq", "calibrators", "engines")

Figures = dict[str, Any]
FAILED = "failed"  # the figure that says why there are no others


@dataclass(frozen=True)
class RowSpec:
    """A row that can be measured.

    Attributes:
        suite: which file it belongs to: `benchmarks/results/<suite>.json`.
        name: its name there.
        measure: measures it, given the figures of the suite's earlier rows by name; returns JSON.
        is_ours: whether the figures depend on trt_ptq's code; those of a peer are valid for every commit.
    """

    suite: str
    name: str
    measure: Callable[[Mapping[str, Figures]], Figures]
    is_ours: bool = True

    @property
    def full_name(self) -> str:
        """The name on the command line."""
        return f"{self.suite}/{self.name}"


class ResultsFile:
    """The rows of one suite, each with the commit that it was measured on.

    Args:
        suite: name of the suite.
        folder: the folder of the file.
    """

    def __init__(self, suite: str, folder: Path = RESULTS) -> None:
        self._path = folder / f"{suite}.json"
        exists = self._path.exists()
        self._rows: dict[str, dict[str, Any]] = json.loads(self._path.read_text("utf-8"))["rows"] if exists else {}

    @property
    def figures(self) -> dict[str, Figures]:
        """The figures of all rows by name."""
        return {name: row["figures"] for name, row in self._rows.items()}

    def has(self, spec: RowSpec, code: str) -> bool:
        """Whether the row was measured, and on this `code` if it depends on it or failed; see `code_version`."""
        row = self._rows.get(spec.name)
        if row is None:
            return False
        return row["code"] == code or not (spec.is_ours or FAILED in row["figures"])

    def add(self, name: str, figures: Figures, code: str) -> None:
        """Write the file with this row added or replaced."""
        self._rows[name] = {"commit": commit(), "code": code, "figures": figures}
        content = {"environment": environment(), "rows": self._rows}
        write_atomically(self._path, (json.dumps(content, indent=2) + "\n").encode())


def code_version(root: Path = ROOT) -> str:
    """A hash of trt_ptq's code: rows stay valid when only documentation, tests or benchmarks change."""
    digest = hashlib.sha256()
    for folder in _PRODUCT:
        for path in sorted((root / folder).rglob("*.py")):
            if "__pycache__" not in path.parts and not any(parent.is_symlink() for parent in path.parents):
                digest.update(str(path.relative_to(root)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
