"""Calibrations that are killed with SIGKILL, and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import ROOT, refused, trt_ptq
from tests.networks import images, residual_cnn
from trt_ptq.calibrators.statistics.statistics_file import load_unfinished

BATCHES = 40

# `trt-ptq` as it is, but for how often a checkpoint is saved.
EVERY_BATCH = """
import functools
from trt_ptq.cli import main
from trt_ptq.cli.commands.quantization import calibrate
calibrate.Checkpoint = functools.partial(calibrate.Checkpoint, every=0)
main.main()
"""

# The same, and its second checkpoint is never flushed to disk.
STUCK = """
import os, time
flushed = []
def fsync(descriptor):
    flushed.append(descriptor)
    if len(flushed) == 2:
        print("writing", flush=True)
        time.sleep(600)
os.fsync = fsync
"""


@pytest.fixture
def slow_loader(tmp_path: Path) -> str:
    """Forty batches of five samples; each takes a tenth of a second if SLOW is set."""
    np.save(tmp_path / "images.npy", images(5 * BATCHES))
    (tmp_path / "loader.py").write_text(
        "import os, pathlib, time\n"
        "import numpy as np\n"
        "def batches():\n"
        "    here = pathlib.Path(__file__).parent\n"
        "    for number, x in enumerate(np.split(np.load(here / 'images.npy'), 40), start=1):\n"
        "        if number == 10:\n"
        "            (here / 'tenth').touch()\n"
        "        time.sleep(0.1 if os.environ.get('SLOW') else 0)\n"
        "        yield {'x': x}\n"
    )
    return f"{tmp_path / 'loader.py'}:batches"


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "SLOW": "1"}, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def kill_in_the_middle(checkpoint: Path, *arguments: object) -> None:
    """Start the command, and kill it as soon as its checkpoint holds a few batches."""
    process = start(EVERY_BATCH, *arguments, "--checkpoint", checkpoint)
    for _ in range(600):
        time.sleep(0.1)
        assert process.poll() is None, "finished before it could be killed"
        if checkpoint.exists() and load_unfinished(checkpoint)[1]["batches"] >= 5:
            break
    kill(process)


def test_ctrl_c_saves_what_was_measured_first_and_says_so_in_one_line(
    cnn_path: Path, slow_loader: str, tmp_path: Path
) -> None:
    whole, resumed, checkpoint = tmp_path / "whole.st", tmp_path / "resumed.st", tmp_path / "checkpoint"
    command = ["calibrate", cnn_path, "--data", slow_loader]
    process = subprocess.Popen(
        [sys.executable, "-m", "trt_ptq", *map(str, command), "-o", str(resumed), "--checkpoint", str(checkpoint)],
        cwd=ROOT,
        env={**os.environ, "SLOW": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    tenth = tmp_path / "tenth"
    for _ in range(600):
        time.sleep(0.05)
        assert process.poll() is None, "finished before it could be interrupted"
        if tenth.exists():
            break
    process.send_signal(signal.SIGINT)
    message = process.communicate()[1]
    assert message == f"error: interrupted: progress is saved in {checkpoint}; run the same command again to resume\n"
    assert process.returncode == 130
    assert load_unfinished(checkpoint)[1]["batches"] >= 9
    assert trt_ptq(*command, "-o", resumed, "--checkpoint", checkpoint).returncode == 0
    assert trt_ptq(*command, "-o", whole).returncode == 0
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_killed_calibration_goes_on_and_ends_with_the_same_bytes(
    cnn_path: Path, slow_loader: str, tmp_path: Path
) -> None:
    whole, resumed, checkpoint = tmp_path / "whole.st", tmp_path / "resumed.st", tmp_path / "checkpoint"
    command = ["calibrate", cnn_path, "--data", slow_loader]
    kill_in_the_middle(checkpoint, *command, "-o", resumed)
    assert not resumed.exists()
    kept = load_unfinished(checkpoint)[0].data.samples
    done = trt_ptq(*command, "-o", resumed, "--checkpoint", checkpoint, "--json")
    assert json.loads(done.stdout)["resumed_samples"] == kept
    assert trt_ptq(*command, "-o", whole).returncode == 0
    assert resumed.read_bytes() == whole.read_bytes()
    assert not checkpoint.exists()


@pytest.mark.slow
def test_a_calibration_killed_again_and_again_ends_with_the_same_bytes(
    cnn_path: Path, slow_loader: str, tmp_path: Path
) -> None:
    whole, resumed, checkpoint = tmp_path / "whole.st", tmp_path / "resumed.st", tmp_path / "checkpoint"
    command = ["calibrate", cnn_path, "--data", slow_loader]
    kept = []
    for _ in range(2):
        kill_in_the_middle(checkpoint, *command, "-o", resumed)
        kept.append(load_unfinished(checkpoint)[1]["batches"])
    assert 5 <= kept[0] <= kept[1] < BATCHES
    assert trt_ptq(*command, "-o", resumed, "--checkpoint", checkpoint).returncode == 0
    assert trt_ptq(*command, "-o", whole).returncode == 0
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_killed_while_it_writes_the_checkpoint_it_goes_on_from_the_one_before(
    cnn_path: Path, slow_loader: str, tmp_path: Path
) -> None:
    whole, resumed, checkpoint = tmp_path / "whole.st", tmp_path / "resumed.st", tmp_path / "checkpoint"
    command = ["calibrate", cnn_path, "--data", slow_loader]
    process = start(STUCK + EVERY_BATCH, *command, "-o", resumed, "--checkpoint", checkpoint)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    kill(process)
    assert load_unfinished(checkpoint)[1]["batches"] == 1
    done = trt_ptq(*command, "-o", resumed, "--checkpoint", checkpoint)
    assert f"200 samples, 5 of them from {checkpoint}" in done.stdout
    assert trt_ptq(*command, "-o", whole).returncode == 0
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_killed_calibration_stops_where_it_would_have_stopped(
    cnn_path: Path, slow_loader: str, tmp_path: Path
) -> None:
    whole, resumed, checkpoint = tmp_path / "whole.st", tmp_path / "resumed.st", tmp_path / "checkpoint"
    command = ["calibrate", cnn_path, "--data", slow_loader, "--until-stable", "5%"]
    kill_in_the_middle(checkpoint, *command, "-o", resumed)
    stabilities = [
        json.loads(trt_ptq(*command, *options, "--json").stdout)["stability"]
        for options in (["-o", resumed, "--checkpoint", checkpoint], ["-o", whole])
    ]
    assert stabilities[0] == stabilities[1]
    assert stabilities[0]["stable"]
    assert stabilities[0]["samples"] < 5 * BATCHES
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_changed_data_are_refused(cnn_path: Path, slow_loader: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    command = ["calibrate", cnn_path, "--data", slow_loader, "-o", tmp_path / "s.st"]
    kill_in_the_middle(checkpoint, *command)
    left = checkpoint.read_bytes()
    np.save(tmp_path / "images.npy", images(5 * BATCHES, seed=1))
    assert "the data has changed" in refused(*command, "--checkpoint", checkpoint)
    np.save(tmp_path / "images.npy", images(BATCHES))  # the same samples, in smaller batches
    assert "the data has changed" in refused(*command, "--checkpoint", checkpoint)
    assert checkpoint.read_bytes() == left


@pytest.mark.slow
def test_a_checkpoint_of_something_else_is_refused(cnn_path: Path, slow_loader: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    command = ["--data", slow_loader, "-o", tmp_path / "s.st", "--checkpoint", checkpoint]
    kill_in_the_middle(checkpoint, "calibrate", cnn_path, *command[:-2])
    other = residual_cnn(tmp_path / "other.onnx", seed=1)
    assert "of another model: the graph is the same but the weights differ" in refused("calibrate", other, *command)
    assert "of other --tensors (" in refused("calibrate", cnn_path, *command, "--tensors", "all")
    assert "with --nonfinite refuse, not skip" in refused("calibrate", cnn_path, *command, "--nonfinite", "skip")
    assert "with --until-stable none, not " in refused("calibrate", cnn_path, *command, "--until-stable", "1%")
    assert "a checkpoint of an interrupted calibration" in refused("table", checkpoint)
    damaged = bytearray(checkpoint.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    checkpoint.write_bytes(damaged)
    assert "damaged" in refused("calibrate", cnn_path, *command)


def test_complete_statistics_are_not_taken_for_a_checkpoint(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    command = ["calibrate", cnn_path, "--data", npz_folder]
    assert trt_ptq(*command, "-o", tmp_path / "a.st").returncode == 0
    message = refused(*command, "-o", tmp_path / "b.st", "--checkpoint", tmp_path / "a.st")
    assert message.endswith("not a checkpoint but complete statistics: choose another path")
