"""build: whether the INT8 engine is faster than the FP16 engine, and what --require-speedup makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import Finished, refused, trt_ptq
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import save_table


@pytest.fixture
def build(cnn_path: Path, tmp_path: Path) -> tuple[object, ...]:
    """The arguments of a build of a network that is too small for INT8, by a table."""
    pytest.importorskip("tensorrt_rtx")
    save_table(CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0}), tmp_path / "calibration.json")
    options = ("--backend", "rtx", "--shape", "x=4x16x8x8", "-o", tmp_path / "model.engine")
    return ("build", cnn_path, "--table", tmp_path / "calibration.json", *options)


def test_a_slower_engine_is_named_and_changes_the_exit_status_only_on_request(build: tuple[object, ...]) -> None:
    done: Finished = trt_ptq(*build)
    assert done.returncode == 0
    assert "slower" in done.stdout.split("speed: ")[1]
    assert "slower in INT8 than in FP16" in done.stderr
    required = trt_ptq(*build, "--require-speedup", "1.1", "--json")
    assert required.returncode == 3
    assert 0 < json.loads(required.stdout)["speedup"] < 1.1
    assert "required 1.1 x: FAILED" in trt_ptq(*build, "--require-speedup", "1.1").stdout


def test_a_speedup_is_required_only_of_a_table_and_on_a_known_gpu(build: tuple[object, ...], cnn_path: Path) -> None:
    assert "--require-speedup needs a float model and --table" in refused("build", cnn_path, "--require-speedup", "1.1")
    assert "--gpu is for the time of an INT8 engine" in refused("build", cnn_path, "--gpu", "l4")
    assert "'rtx1' is not in the table" in refused(*build, "--gpu", "rtx1")


def test_an_engine_that_is_built_is_no_error_where_its_plan_says_nothing_of_the_gpu(build: tuple[object, ...]) -> None:
    done = trt_ptq(*build, "--gpu", "h100")
    assert (done.returncode, "model.engine: int8" in done.stdout) == (0, True)
    assert "whether INT8 is faster is unknown: --gpu: TensorRT-RTX does not run on h100" in done.stderr
    assert "--gpu: TensorRT-RTX does not run on h100" in refused(*build, "--gpu", "h100", "--require-speedup", "1.1")
