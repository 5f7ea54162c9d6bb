"""Options of `trt-ptq calibrate` that contradict each other."""

from __future__ import annotations

from pathlib import Path

from tests.cli.run import refused


def test_a_tolerance_that_every_range_keeps_is_refused(cnn_path: Path, npz_folder: Path) -> None:
    message = refused("quantize", cnn_path, "--data", npz_folder, "--until-stable", "100%")
    assert message.startswith("--until-stable must be above 0 and below 1")


def test_a_method_without_until_stable_is_refused(cnn_path: Path, npz_folder: Path) -> None:
    message = refused("calibrate", cnn_path, "--data", npz_folder, "--method", "mse")
    assert message.startswith("--method selects the ranges that --until-stable monitors")


def test_a_checkpoint_that_would_replace_the_result_is_refused(
    cnn_path: Path, npz_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stats.safetensors"
    message = refused("calibrate", cnn_path, "--data", npz_folder, "-o", out, "--checkpoint", out)
    assert message.startswith(f"--checkpoint and --out are the same file, {out}")


def test_a_shard_is_never_stopped_early(cnn_path: Path, npz_folder: Path) -> None:
    message = refused("calibrate", cnn_path, "--data", npz_folder, "--shard", "0/2", "--until-stable", "1%")
    assert message.startswith("--until-stable needs all samples, and a shard has only some")
