"""Runs scripts on the stand-ins, with NVIDIA's genuine TensorRT bindings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.standins import packages
from tests.standins.build import Standins, StandinUnavailableError, build

ROOT = Path(__file__).parents[3]
LATEST = packages.TENSORRT_VERSIONS[-1]
PRELUDE = """
import signal, os
from pathlib import Path
import numpy as np
from tests.calibrators.tensorrt.building import *
from trt_ptq.calibrators import *
"""


class Play(Protocol):
    """Runs a script in the test's folder. Returns its outcome, with everything logged as "log".

    `memory` is "driver" (our ctypes driver alone), or a genuine package beside it: "pycuda" or "cuda-bindings".
    """

    def __call__(
        self, script: str, version: str = LATEST, memory: str = "driver", **switches: Any
    ) -> dict[str, Any]: ...


@pytest.fixture(scope="session")
def standins() -> Standins:
    try:
        return build()
    except StandinUnavailableError as error:
        pytest.skip(str(error))


def memory_packages(memory: str, standins: Standins) -> list[Path]:
    if memory == "pycuda":
        return [packages.pycuda(standins)]
    return [packages.cuda_bindings()] if memory == "cuda-bindings" else []


@pytest.fixture
def play(standins: Standins, tmp_path: Path) -> Play:
    def run(script: str, version: str = LATEST, memory: str = "driver", **switches: Any) -> dict[str, Any]:
        try:
            folders = [packages.tensorrt_bindings(version), *memory_packages(memory, standins)]
        except StandinUnavailableError as error:
            pytest.skip(str(error))
        environment = standins.environment(folders, **switches)
        environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        *log, last_line = done.stdout.splitlines()
        outcome: dict[str, Any] = json.loads(last_line)
        outcome["log"] = "\n".join([*log, done.stderr])
        return outcome

    return run


@pytest.fixture(params=packages.TENSORRT_VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)
