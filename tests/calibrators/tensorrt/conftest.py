"""Runs scripts on the stand-ins, with NVIDIA's genuine TensorRT bindings."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.standins import packages
from tests.standins.libraries import Standins, StandinUnavailableError, build
from tests.standins.processes import run_script

LATEST = packages.TENSORRT_VERSIONS[-1]
MODULES = (
    "numba",
    "tests.calibrators.tensorrt.builds.building",
    "trt_ptq.calibrators.tensorrt.percentile_calibrator",
    "trt_ptq.calibrators.tensorrt.table_calibrator",
)
PRELUDE = """
import signal, os
from pathlib import Path
import numpy as np
from tests.calibrators.tensorrt.builds.building import *
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
        code = PRELUDE + textwrap.dedent(script)
        done = run_script(standins, ["-c", code], folders, modules=MODULES, folder=tmp_path, **switches)
        assert done.returncode == 0, done.stderr
        *log, last_line = done.stdout.splitlines()
        outcome: dict[str, Any] = json.loads(last_line)
        outcome["log"] = "\n".join([*log, done.stderr])
        return outcome

    return run


@pytest.fixture(params=packages.TENSORRT_VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)
