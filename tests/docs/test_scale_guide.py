"""What docs/calibration-at-scale.md tells people to run does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.run import ROOT, trt_ptq
from tests.networks import images, residual_cnn

GUIDE = (ROOT / "docs" / "calibration-at-scale.md").read_text(encoding="utf-8")
SHARDS = 2  # instead of the guide's 100


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The shared folder of the guide: a model and calibration data."""
    residual_cnn(tmp_path / "model.onnx")
    (tmp_path / "calibration").mkdir()
    for index in range(10):
        np.savez(tmp_path / "calibration" / f"{index}.npz", x=images(12, seed=index))
    done = trt_ptq("calibrate", "model.onnx", "--data", "calibration", "-o", "whole.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def run(script: str, folder: Path, **variables: str) -> None:
    """Run a script of the guide in bash, with `trt-ptq` on the path."""
    command = folder / "bin" / "trt-ptq"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m trt_ptq "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def merge_and_compare(shared: Path) -> None:
    merge = blocks("bash")[1].replace("{0..99}", f"{{0..{SHARDS - 1}}}")
    run(merge, shared)
    assert (shared / "stats.safetensors").read_bytes() == (shared / "whole.safetensors").read_bytes()


@pytest.mark.slow
def test_the_slurm_scripts_give_the_bytes_of_one_process(shared: Path) -> None:
    script = blocks("bash")[0].replace("COUNT=100", f"COUNT={SHARDS}")
    for index in range(SHARDS):
        run(script, shared, SLURM_ARRAY_TASK_ID=str(index))
    merge_and_compare(shared)


@pytest.mark.slow
def test_the_kubernetes_job_gives_the_bytes_of_one_process(shared: Path) -> None:
    job: Any = yaml.safe_load(blocks("yaml")[0])
    assert job["spec"]["completions"] == 100
    (script,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
    for index in range(SHARDS):
        run(script.replace("/100", f"/{SHARDS}"), shared, JOB_COMPLETION_INDEX=str(index))
    merge_and_compare(shared)


@pytest.mark.slow
def test_a_missing_shard_fails_the_guides_merge(shared: Path) -> None:
    done = trt_ptq("merge", "whole.safetensors", "shards/1.safetensors", "-o", "stats.safetensors", cwd=shared)
    assert done.returncode == 2
    assert "shards/1.safetensors: no such statistics file" in done.stderr
