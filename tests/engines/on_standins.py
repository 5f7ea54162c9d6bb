"""Runs Python on the stand-ins: this project with the genuine TensorRT bindings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.standins import packages
from tests.standins.libraries import Standins
from tests.standins.processes import run_script

LATEST = packages.TENSORRT_VERSIONS[-1]


def outcome_of(standins: Standins, arguments: Sequence[str], version: str = LATEST, **switches: Any) -> Any:
    """What a script prints as JSON in its last line; the script must succeed."""
    folders = [packages.tensorrt_bindings(version)]
    done = run_script(standins, arguments, folders, modules=["trt_ptq.engines.backends"], **switches)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
