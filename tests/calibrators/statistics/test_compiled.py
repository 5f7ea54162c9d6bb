"""Compiled loops work where numba finds no folder for its cache."""

from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import numpy as np
from trt_ptq.calibrators.methods import mse
from trt_ptq.calibrators.statistics.kernels import BINS, ZEROS, accumulate
counts = np.zeros(BINS + ZEROS, np.int64)
accumulate(np.float32([0.5, -1.5]), counts, 1)
print(counts.sum())
"""


def test_without_a_writable_cache_folder_every_process_compiles_for_itself() -> None:
    # The class is numba's name for "NUMBA_CACHE_DIR and nothing else"; /proc refuses new folders to root, too.
    unwritable = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": "/proc/nowhere"}
    environment = os.environ | unwritable
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
