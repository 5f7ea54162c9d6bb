"""trt-ptq plan, on recorded logs of TensorRT-RTX and on engines that it builds without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import refused, trt_ptq
from tests.engines.plans.recorded import recorded_log, recorded_plan
from tests.networks import residual_cnn
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import save_table
from trt_ptq.cli.commands.engines.plan_tables import say_plan
from trt_ptq.engines.cost import GPUS, estimate
from trt_ptq.engines.running.measured_kernels import MeasuredKernels


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, Path]:
    """Logs of the builder for the recogniser, by precision."""
    files = {precision: tmp_path / f"{precision}.log" for precision in ("int8", "fp16")}
    for precision, path in files.items():
        path.write_text(recorded_log("recogniser", precision))
    return files


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine with dynamic shapes, whose plan is kept beside it."""
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
    path = tmp_path_factory.mktemp("engine") / "model.engine"
    model = residual_cnn(path.with_name("cnn.onnx"))
    built = trt_ptq("build", model, "--backend", "rtx", "--shape", "x=1x16x8x8:4x16x8x8:8x16x8x8", "-o", path)
    assert built.returncode == 0, built.stderr
    return path


def test_tables_fit_80_columns_and_call_the_time_an_estimate(logs: dict[str, Path]) -> None:
    shown = trt_ptq("plan", logs["int8"], "--against", logs["fp16"]).stdout
    assert max(len(line) for line in shown.splitlines() if line.startswith(("│", "┃", "└"))) <= 80
    assert "estimate for rtx4090: " in shown
    assert "An estimate from data sheets leaves out: caches" in shown


def test_a_comparison_names_the_slow_layers_and_their_reasons(logs: dict[str, Path]) -> None:
    shown = trt_ptq("plan", logs["int8"], "--against", logs["fp16"], "--gpu", "l4").stdout
    assert "x the estimated time on l4" in shown
    assert "its INT8 product writes float32, which another kernel scales and quantizes: " in shown
    assert "no layer is estimated slower" in trt_ptq("plan", logs["int8"], "--against", logs["int8"]).stdout


def test_json_has_every_kernel_its_estimate_and_every_slow_layer(logs: dict[str, Path]) -> None:
    document = json.loads(trt_ptq("plan", logs["int8"], "--against", logs["fp16"], "--json").stdout)
    plan = recorded_plan("recogniser", "int8")
    assert len(document["plan"]["kernels"]) == len(plan.kernels)
    assert document["plan"]["bytes_moved"] == plan.bytes_moved
    estimated = document["plan"]["estimate"]
    assert sum(kernel["seconds"] for kernel in estimated["kernels"]) == pytest.approx(estimated["seconds"])
    comparison = document["comparison"]
    assert comparison["slowdown"] == pytest.approx(comparison["seconds"] / comparison["reference_seconds"])
    assert comparison["slow_layers"][0]["reasons"]


def test_an_engine_shows_the_plan_that_is_kept_beside_it(engine: Path) -> None:
    shown = trt_ptq("plan", engine, "--shape", "x=4x16x8x8")
    assert shown.returncode == 0
    assert "these are the kernels of a build for x=4x16x8x8 alone" in shown.stderr


def test_the_suggested_change_is_checked_by_another_build(cnn_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
    table = tmp_path / "calibration.cache"
    save_table(CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0}), table)
    given = ("--table", table, "--shape", "x=4x16x8x8", "--against", cnn_path, "--check", "--json")
    document = json.loads(trt_ptq("plan", cnn_path, *given).stdout)
    suggested = set(document["comparison"]["nodes_to_exclude"])
    assert suggested <= set(document["plan"]["quantized"])
    assert document["check"]["slowdown"] < document["comparison"]["slowdown"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "x=9x16x8x8"], "--shape x=9x16x8x8 is outside the profile of "),
        (["--shape", "x=2x16x8x8"], "is for x=4x16x8x8: give the model to plan it for x=2x16x8x8"),
        (["--shape", "y=2x16"], "--shape names unknown input 'y'"),
        (["--table", "t.cache"], "--table needs a float model"),
        (["--check"], "--check needs --table and --against"),
        (["--exclude", "c1"], "--exclude needs --table"),
        (["--gpu", "rtx9090"], "'rtx9090' is not in the table"),
        (["--gpu", "h100"], "TensorRT-RTX does not run on h100 (compute capability 9.0)"),
        (["--against", "gone.engine"], "cannot read gone.engine"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(engine: Path, arguments: list[str], message: str) -> None:
    assert message in refused("plan", engine, *arguments)


def test_a_log_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    path.write_text("[I] Engine built in 3 s\n")
    assert "build.log: this log of TensorRT-RTX has no list of kernels" in refused("plan", path)


@pytest.mark.parametrize(("device", "judged_on"), [("NVIDIA L4", "l4"), ("NVIDIA H100 80GB HBM3", "rtx4090")])
def test_the_gpu_here_is_the_default_where_the_engine_runs_on_it(
    logs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, device: str, judged_on: str
) -> None:
    monkeypatch.setattr("trt_ptq.cli.commands.engines.plan_engine.gpu_name", lambda: device)
    shown = trt_ptq("plan", logs["int8"])
    assert f"estimate for {judged_on}: " in shown.stdout


@pytest.mark.parametrize(
    ("measured_on", "said"),
    [("NVIDIA L4", "the estimate for l4 is 0."), ("NVIDIA L40S", "the estimate is for another GPU")],
)
def test_an_estimate_is_judged_only_by_times_of_its_own_gpu(
    capsys: pytest.CaptureFixture[str], measured_on: str, said: str
) -> None:
    plan = recorded_plan("magika", "int8")
    cost = estimate(plan, GPUS["l4"])
    measured = MeasuredKernels(measured_on, {found.kernel.name: 10 * found.seconds for found in cost.kernels})
    say_plan("magika", plan, cost, measured)
    assert said in capsys.readouterr().out
