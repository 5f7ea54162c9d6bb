"""Threads for the cores that the process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trt_ptq._internal.hardware import cpu
from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.onnx_io.ort_session import session_options

ROOT = Path(__file__).parents[3]
ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.onnx_io.ort_session import session_options
print(usable_cores(), session_options().intra_op_num_threads)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_that_the_process_may_not_use_do_not_count() -> None:
    done = subprocess.run([sys.executable, "-c", ON_ONE_CORE], capture_output=True, text=True, check=True, cwd=ROOT)
    machine_has_one = os.cpu_count() == 1
    assert done.stdout.split() == ["1", "0" if machine_has_one else "1"]


@pytest.mark.skipif(usable_cores() != os.cpu_count(), reason="these tests are kept from some cores")
def test_onnx_runtime_chooses_where_all_cores_may_be_used() -> None:
    assert session_options().intra_op_num_threads == 0


def test_an_explicit_number_of_threads_is_used() -> None:
    assert session_options(3).intra_op_num_threads == 3


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
    ],
)
def test_the_processor_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert usable_cores() == cores
    assert session_options().intra_op_num_threads == (0 if cores == 64 else cores)
