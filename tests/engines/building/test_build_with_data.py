"""Stand-in: `trt-ptq build --implicit --data`, where TensorRT 10 calibrates by itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.run import refused
from tests.engines.on_standins import LATEST
from tests.standins import packages
from tests.standins.libraries import Standins
from tests.standins.processes import run_script

MODULES = [
    "onnx_ir",
    "typer",
    "trt_ptq.calibrators.tensorrt.batch",
]  # onnxruntime cannot be forked
SHAPE = "x=1x16x8x8:12x16x8x8:12x16x8x8"


def run(standins: Standins, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["-m", "trt_ptq", "build", *map(str, arguments)]
    return run_script(standins, command, [packages.tensorrt_bindings(LATEST)], modules=MODULES)


@pytest.mark.parametrize(
    ("calibrator", "algorithm"), [("entropy", "EntropyCalibration2"), ("minmax", "MinMaxCalibration")]
)
def test_the_cache_is_written_and_then_used_without_data(
    standins: Standins, cnn_path: Path, npz_folder: Path, tmp_path: Path, calibrator: str, algorithm: str
) -> None:
    cache, engine = tmp_path / "model.cache", tmp_path / "model.engine"
    options = ["--implicit", "--data", npz_folder, "--calibrator", calibrator, "--cache", cache, "--shape", SHAPE]
    done = run(standins, cnn_path, *options, "-o", engine)
    assert done.returncode == 0, done.stderr
    assert cache.read_text().splitlines()[0].endswith(algorithm)
    assert engine.is_file()
    for file in npz_folder.iterdir():
        file.write_bytes(b"unreadable")
    first = cache.read_bytes()
    assert run(standins, cnn_path, *options, "-o", engine).returncode == 0
    assert cache.read_bytes() == first


def test_a_failure_in_the_data_leaves_no_engine_and_no_cache(
    standins: Standins, cnn_path: Path, npz_folder: Path, tmp_path: Path
) -> None:
    (npz_folder / "004.npz").write_bytes(b"truncated")
    cache, engine = tmp_path / "model.cache", tmp_path / "model.engine"
    done = run(standins, cnn_path, "--implicit", "--data", npz_folder, "--cache", cache, "--shape", SHAPE, "-o", engine)
    assert done.returncode == 2
    assert "004.npz: not a readable NumPy file" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(path.name for path in tmp_path.glob("model*")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--implicit"], "--implicit needs either --table or --data"),
        (["--data", "d"], "--data needs --implicit"),
        (["--calibrator", "minmax"], "--calibrator and --preprocess need --data"),
        (["--implicit", "--data", "DATA", "--dynamic-ranges"], "--dynamic-ranges needs --implicit"),
        (["--implicit", "--data", "DATA", "--cache", "model.engine"], "it is an input of this command"),
        (["--implicit", "--data", "DATA", "--calibrator", "mse"], "'mse' is not one of 'entropy', 'minmax'"),
    ],
)
def test_options_that_do_not_go_together(cnn_path: Path, npz_folder: Path, options: list[str], message: str) -> None:
    assert message in refused(
        "build", cnn_path, *(str(npz_folder) if option == "DATA" else option for option in options)
    )
