"""Runs the real command line in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def trt_ptq(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`trt-ptq arguments…`, with output and exit status."""
    command = [sys.executable, "-m", "trt_ptq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


def refused(*arguments: object) -> str:
    """The one line with which a command refuses bad input; makes sure that it is one, with exit status 2."""
    done = trt_ptq(*arguments)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert done.stdout == ""
    return lines[0].removeprefix("error: ")
