"""modelopt in a process of its own Python, imported and waiting, so that only its `quantize` is timed."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"


class NotInstalledError(Exception):
    """modelopt cannot be run here; the message says why."""


@dataclass(frozen=True)
class Modelopt:
    """The waiting process, what it writes to standard error, and the versions in it."""

    process: subprocess.Popen[str]
    log: IO[str]
    versions: dict[str, str]

    def quantize(self, method: str, samples: int, batch: int) -> dict[str, Any]:
        """`seconds` of the call, `dequantize_nodes` in the result, `peak_bytes` of the process until now."""
        assert self.process.stdin
        self.process.stdin.write(f"{method} {samples} {batch}\n")
        self.process.stdin.flush()
        return _answer(self.process, self.log)


@contextmanager
def modelopt_process(model: Path, python: Path = PYTHON) -> Iterator[Modelopt]:
    """modelopt, ready to quantize `model`.

    Raises:
        NotInstalledError: there is no such Python, or modelopt fails in it.
    """
    if not python.exists():
        raise NotInstalledError(f"modelopt is not installed: no {python}, which `make bench` makes")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = [str(python), "-m", "benchmarks.speed.modelopt_server", str(model)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=ROOT) as process:
            try:
                yield Modelopt(process, log, _answer(process, log))
            finally:
                process.kill()


def _answer(process: subprocess.Popen[str], log: IO[str]) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        log.seek(0)
        told = log.read().strip().splitlines() or ["without a message"]
        raise NotInstalledError(f"modelopt fails: {told[-1]}")
    answer: dict[str, Any] = json.loads(line)
    return answer
