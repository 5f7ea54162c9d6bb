"""Runs Python scripts on the stand-ins, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .libraries import Standins

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("fork_server.py")
TIMEOUT_S = 120
MAX_SERVERS = 6  # the four versions of TensorRT and two more; each holds the imported modules in memory


class ForkServer:
    """A process with genuine packages and the stand-ins, which forks a child for each script."""

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), *modules],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as outputs:
            stdout, stderr = Path(outputs, "stdout"), Path(outputs, "stderr")
            request = {
                "arguments": [str(argument) for argument in arguments],
                "environment": dict(environment),
                "folder": str(folder),
                "stdout": str(stdout),
                "stderr": str(stderr),
                "timeout_s": TIMEOUT_S,
            }
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError(f"the fork server ended with status {self._process.wait()}")
            return subprocess.CompletedProcess(arguments, int(answer), stdout.read_text(), stderr.read_text())

    def close(self) -> None:
        self._process.communicate()  # closes its stdin, which ends it


_servers: OrderedDict[tuple[Path | str, ...], ForkServer] = OrderedDict()  # the most recently used last


def run_script(
    standins: Standins,
    arguments: Sequence[str],
    folders: Sequence[Path],
    *,
    modules: Sequence[str] = (),
    folder: Path = ROOT,
    **switches: Any,
) -> subprocess.CompletedProcess[str]:
    """`python arguments…`, where arguments start with `-c CODE`, `-m MODULE` or the path of a script.

    Args:
        standins: the stand-in libraries.
        arguments: what to run.
        folders: of the genuine packages, see packages.py.
        modules: imported before, in the process that is forked.
        folder: the working directory.
        switches: of the stand-ins, see `Standins.environment`.
    """
    environment = standins.environment(folders, **switches)
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(ROOT)])
    key: tuple[Path | str, ...] = (*folders, *modules)
    if key not in _servers:
        while len(_servers) >= MAX_SERVERS:
            _servers.popitem(last=False)[1].close()
        plain = standins.environment(folders)
        _servers[key] = ForkServer({**plain, "PYTHONPATH": environment["PYTHONPATH"]}, modules)
    _servers.move_to_end(key)
    return _servers[key].run(arguments, environment, folder)
