"""build, inspect and bench: what they say where they cannot do what is asked (exit status 2, one line, no file)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.run import refused, trt_ptq, trt_ptq_process
from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import save_table
from trt_ptq.engines.library import has_tensorrt

NO_GPU = pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU here")
NO_TENSORRT = pytest.mark.skipif(has_tensorrt(), reason="TensorRT is installed here")


@pytest.fixture(autouse=True)
def _rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.cache"
    save_table(CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0}), path)
    return path


def build(model: Path, *arguments: object) -> str:
    out = model.parent / "out" / "model.engine"
    text = refused("build", model, "--shape", "x=4x16x8x8", "-o", out, *arguments)
    assert not out.exists()
    return text


def test_rtx_takes_no_table_beside_the_model(cnn_path: Path, table: Path) -> None:
    text = build(cnn_path, "--backend", "rtx", "--table", table, "--implicit")
    assert "trt-ptq qdq MODEL --table TABLE" in text


def test_the_log_of_the_builder_stays_out_of_the_output(cnn_path: Path, tmp_path: Path) -> None:
    arguments = ("--backend", "rtx", "--shape", "x=4x16x8x8", "--workspace-mib", 1)
    done = trt_ptq_process("build", cnn_path, *arguments, "-o", tmp_path / "model.engine")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timing-cache", "timing.cache"], "has no timing cache"),
        (["--hardware-compatibility", "ampere+"], "has no hardware compatibility level ampere+"),
        (["--dla-core", "0"], "there is no DLA core 0"),
        (["--version-compatible"], "libnvinfer_lean"),
        (["--workspace-mib", "1"], "workspace limit"),
    ],
)
def test_a_setting_that_rtx_does_not_honour_is_refused(cnn_path: Path, arguments: list[str], message: str) -> None:
    assert message in build(cnn_path, "--backend", "rtx", *arguments)


@NO_TENSORRT
def test_tensorrt_that_is_not_installed_says_how_to_get_it(cnn_path: Path) -> None:
    assert 'pip install "trt-ptq[trt11]"' in build(cnn_path, "--backend", "trt")


@NO_TENSORRT
@pytest.mark.parametrize("ranges", ["--table", "--data"])
def test_implicit_without_tensorrt_says_how_to_get_the_last_line_with_calibrators(
    cnn_path: Path, table: Path, npz_folder: Path, ranges: str
) -> None:
    given = {"--table": table, "--data": npz_folder}[ranges]
    assert 'pip install "trt-ptq[trt10]"' in build(cnn_path, "--backend", "trt", ranges, given, "--implicit")


def test_an_unknown_backend_is_refused_with_those_there_are(cnn_path: Path) -> None:
    assert "'openvino' is not one of 'auto', 'trt', 'rtx'" in build(cnn_path, "--backend", "openvino")


def test_an_unknown_level_is_refused_with_those_there_are(cnn_path: Path) -> None:
    text = build(cnn_path, "--hardware-compatibility", "hopper")
    assert "'hopper' is not one of 'none', 'ampere+', 'same-compute-capability'" in text


def test_implicit_needs_a_table_and_dynamic_ranges_need_implicit(cnn_path: Path, table: Path) -> None:
    assert "--implicit needs either --table or --data" in build(cnn_path, "--implicit")
    assert "--dynamic-ranges needs --implicit and --table" in build(cnn_path, "--table", table, "--dynamic-ranges")


@NO_GPU
def test_an_engine_is_compared_only_where_there_is_a_gpu(cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_bytes(b"plan")
    command = ("compare", cnn_path, tmp_path / "m.engine", "--data", "images.npz")
    assert "an engine runs only on an NVIDIA GPU, and there is none here" in refused(*command)


@NO_GPU
@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_an_engine_where_no_gpu_is_is_refused(cnn_path: Path, tmp_path: Path, command: str) -> None:
    engine = tmp_path / "model.engine"
    built = trt_ptq("build", cnn_path, "--precision", "fp32", "--shape", "x=4x16x8x8", "-o", engine)
    assert built.returncode == 0, built.stderr
    assert "an engine runs only on an NVIDIA GPU, and there is none here" in refused(command, engine)
