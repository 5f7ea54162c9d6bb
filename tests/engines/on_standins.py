"""Python on the stand-ins: the genuine TensorRT bindings, with this project beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.standins import packages
from tests.standins.build import Standins

ROOT = Path(__file__).parents[2]
LATEST = packages.TENSORRT_VERSIONS[-1]


def run_python(
    standins: Standins, arguments: Sequence[str], folders: Sequence[Path], **switches: Any
) -> subprocess.CompletedProcess[str]:
    """`python arguments…` with the packages in `folders`; for `switches` see `Standins.environment`."""
    environment = standins.environment(list(folders), **switches)
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment, "PYTHONPATH": f"{environment['PYTHONPATH']}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def outcome_of(standins: Standins, arguments: Sequence[str], version: str = LATEST, **switches: Any) -> Any:
    """What a script that succeeds prints as JSON in its last line."""
    done = run_python(standins, arguments, [packages.tensorrt_bindings(version)], **switches)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
