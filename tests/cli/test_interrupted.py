"""Ctrl-C and SIGTERM end a command in one line, and leave nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run import ROOT, trt_ptq


def test_to_be_terminated_leaves_nothing_in_the_temporary_folder(
    cnn_path: Path, npz_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text(
        "import os, signal\n"
        "def accuracy(run):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return {'accuracy': 1.0}\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    options = ["--data", npz_folder, "--out", tmp_path / "out", "--eval", f"{metric}:accuracy"]
    done = trt_ptq("quantize", cnn_path, *options)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert not list(scratch.glob("trt-ptq-*"))


def test_an_interrupt_after_the_first_trial_says_how_to_go_on(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text(
        "import numpy as np\n"
        "calls = 0\n"
        "def accuracy(run):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls == 3:\n"
        "        raise KeyboardInterrupt\n"
        "    run({'x': np.ones((1, 16, 8, 8), np.float32)})\n"
        "    return {'accuracy': 1.0 if calls == 1 else 0.5}\n"
    )
    out = tmp_path / "out"
    done = trt_ptq("quantize", cnn_path, "--data", npz_folder, "--out", out, "--eval", f"{metric}:accuracy")
    assert done.returncode == 130
    saved = f"interrupted: progress is saved in {out / 'trials.jsonl'}; run the same command again to resume"
    assert done.stderr.splitlines()[-1] == f"error: {saved}"


def test_an_interrupt_leaves_the_old_file_whole(cnn_path: Path, tmp_path: Path) -> None:
    loader = tmp_path / "loader.py"
    loader.write_text(
        "import numpy as np\n"
        "def batches():\n"
        "    yield {'x': np.ones((1, 16, 8, 8), np.float32)}\n"
        "    raise KeyboardInterrupt\n"
    )
    out = tmp_path / "stats.safetensors"
    out.write_bytes(b"the old one")
    done = trt_ptq("calibrate", cnn_path, "--data", f"{loader}:batches", "-o", out)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert out.read_bytes() == b"the old one"
    assert not list(tmp_path.glob(".*.tmp"))


def test_an_interrupt_before_the_command_starts_is_one_line() -> None:
    code = (
        "import sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'trt_ptq.cli.main':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from trt_ptq.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
