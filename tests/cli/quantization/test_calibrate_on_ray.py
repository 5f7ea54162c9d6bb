"""`trt-ptq calibrate --ray`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.run import refused, trt_ptq


@pytest.mark.slow
def test_the_command_starts_a_cluster_of_its_own(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray")
    for name, options in (("ray", ["--ray", "local"]), ("one", [])):
        done = trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", tmp_path / name, *options)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "ray").read_bytes() == (tmp_path / "one").read_bytes()


@pytest.mark.slow
def test_the_command_tells_a_workers_error_in_the_one_line_of_one_process(
    cnn_path: Path, npz_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs ray")
    file = npz_folder / "007.npz"
    file.write_bytes(file.read_bytes()[:500])
    command = ["calibrate", cnn_path, "--data", npz_folder, "-o", tmp_path / "out.st"]
    assert refused(*command, "--ray", "local") == refused(*command)
    assert not (tmp_path / "out.st").exists()


def test_a_cluster_and_a_shard_are_not_asked_for_at_once(cnn_path: Path, npz_folder: Path) -> None:
    message = refused("calibrate", cnn_path, "--data", npz_folder, "--ray", "local", "--shard", "0/2")
    assert message == "--shard does not work with --ray: omit one of the two"
