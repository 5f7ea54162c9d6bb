"""Independent machines collect the same statistics as one machine, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import refused, trt_ptq
from tests.networks import images
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import merge_statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics, save_statistics
from trt_ptq.data.open import open_data
from trt_ptq.data.shard import ShardedSource
from trt_ptq.onnx_io.load import Model


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """30 samples in one file."""
    np.savez(tmp_path / "samples.npz", x=images(30))
    return tmp_path / "samples.npz"


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_shards_merge_to_the_bytes_of_one_run_for_any_batch_size(
    cnn: Model, samples: Path, tmp_path: Path, batch_size: int, count: int
) -> None:
    source = open_data(str(samples), cnn.inputs, batch_size=batch_size)
    calibration_tensors = select_calibration_tensors(cnn, ["all"])
    save_statistics(collect_statistics(cnn, source, calibration_tensors), tmp_path / "whole.st")
    files = [tmp_path / f"{index}.st" for index in range(count)]
    for index, file in enumerate(files):
        save_statistics(collect_statistics(cnn, ShardedSource(source, index, count), calibration_tensors), file)
    save_statistics(merge_statistics(map(load_statistics, reversed(files))), tmp_path / "merged.st")
    assert (tmp_path / "merged.st").read_bytes() == (tmp_path / "whole.st").read_bytes()


def test_a_batch_scheduler_needs_two_commands(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    def calibrate(out: Path, *options: object) -> None:
        done = trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", out, *options)
        assert (done.returncode, done.stderr) == (0, "")  # a shard of 36 samples gets no warning that it is small

    shards = [tmp_path / f"shard-{index}.st" for index in range(3)]
    for index, shard in enumerate(shards):
        calibrate(shard, "--shard", f"{index}/3")
    calibrate(tmp_path / "whole.st")
    assert trt_ptq("merge", *shards, "-o", tmp_path / "merged.st").returncode == 0
    assert (tmp_path / "merged.st").read_bytes() == (tmp_path / "whole.st").read_bytes()


def test_a_duplicate_shard_is_refused_and_a_missing_one_is_named(
    cnn_path: Path, npz_folder: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{index}.st" for index in range(3)]
    for index, file in enumerate(files):
        trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", file, "--shard", f"{index}/4")
    message = refused("merge", *files, tmp_path / "1.st", "-o", tmp_path / "merged.st")
    assert message.startswith("shard 1/4 occurs twice")
    done = trt_ptq("merge", files[2], files[0], "-o", tmp_path / "part.st")
    assert "warning: part of the data is missing: shards 1/4, 3/4 are not merged\n" in done.stderr
    done = trt_ptq("merge", tmp_path / "part.st", files[1], "-o", tmp_path / "merged.st")
    assert "part of the data is missing: shard 3/4 is not merged\n" in done.stderr


def test_a_single_shard_covers_all_data(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", tmp_path / "whole.st")
    trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", tmp_path / "only.st", "--shard", "0/1")
    assert (tmp_path / "only.st").read_bytes() == (tmp_path / "whole.st").read_bytes()


def test_merging_says_if_all_shards_together_are_few_samples(cnn: Model, samples: Path, tmp_path: Path) -> None:
    source = open_data(str(samples), cnn.inputs)
    for index in range(2):
        save_statistics(
            collect_statistics(cnn, ShardedSource(source, index, 2), select_calibration_tensors(cnn)),
            tmp_path / f"{index}.st",
        )
    done = trt_ptq("merge", tmp_path / "0.st", tmp_path / "1.st", "-o", tmp_path / "merged.st")
    assert done.stderr == "warning: only 30 calibration samples: 100 to 1000 are advised\n"


def test_a_shard_without_batches_is_an_error_and_the_others_are_complete(
    cnn_path: Path, samples: Path, tmp_path: Path
) -> None:
    options = ["--data", samples, "--batch-size", 15]
    message = refused("calibrate", cnn_path, *options, "--shard", "2/3", "-o", tmp_path / "2.st")
    assert "shard 2/3 has no batches: the data has 2, so use 2 shards at most" in message
    assert not (tmp_path / "2.st").exists()
    for index in range(2):
        trt_ptq("calibrate", cnn_path, *options, "--shard", f"{index}/3", "-o", tmp_path / f"{index}.st")
    trt_ptq("calibrate", cnn_path, *options, "-o", tmp_path / "whole.st")
    trt_ptq("merge", tmp_path / "0.st", tmp_path / "1.st", "-o", tmp_path / "merged.st")
    assert (tmp_path / "merged.st").read_bytes() == (tmp_path / "whole.st").read_bytes()


def test_counting_shards_from_one_is_refused(cnn_path: Path, samples: Path) -> None:
    message = refused("calibrate", cnn_path, "--data", samples, "--shard", "8/8")
    assert message == (
        "there is no shard 8/8: shards count from 0, so 8 of them are 0/8 to 7/8 (for SLURM: --array=0-7)"
    )
