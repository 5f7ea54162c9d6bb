"""Runs the command line: in this process, unless the test is about the process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from trt_ptq.cli.main import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def trt_ptq(*arguments: object, cwd: Path = ROOT) -> Finished:
    """Run `trt-ptq arguments…`."""
    out, err, folder = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(cwd)
    try:
        with (
            patch.object(sys, "argv", ["trt-ptq", *map(str, arguments)]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            main()
    except SystemExit as end:
        return Finished(end.code if isinstance(end.code, int) else 0, out.getvalue(), err.getvalue())
    finally:
        os.chdir(folder)
    raise AssertionError("main() must end with an exit status")


def trt_ptq_process(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `trt-ptq arguments…` in a process of its own."""
    command = [sys.executable, "-m", "trt_ptq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


def refused(*arguments: object) -> str:
    """Run a command that rejects its input: exit status 2, and one line, which is returned."""
    done = trt_ptq(*arguments)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert done.stdout == ""
    return lines[0].removeprefix("error: ")
