"""What a run leaves in its output directory, and what it never touches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.networks import images, residual_cnn
from tests.pipeline.quantizing import quantized, source
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.calibrators.table.table_file import load_table
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError, OutputError, UsageError
from trt_ptq.onnx_io.load import Model, load_model

ENGINES = {
    f"model.{precision}.engine{suffix}" for precision in ("int8", "fp16") for suffix in ("", ".json", ".plan.json")
}


def test_all_results_are_in_one_folder(cnn: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = quantized(cnn, out, backend="auto")
    statistics = load_statistics(out / "stats.safetensors")
    assert load_table(out / "calibration.json").amax["r1"] == statistics.tensors["r1"].amax
    assert TensorRTCache.read(out / "calibration.cache").algorithm == "MinMaxCalibration"
    assert ort.InferenceSession(out / "model.int8.onnx").run(None, {"x": images(2)})[0].shape == (2, 32)
    assert {path.name for path in out.iterdir()} == {
        "stats.safetensors",
        "calibration.cache",
        "calibration.json",
        "model.int8.onnx",
        "model.fp16.onnx",
        "report.json",
        "report.html",
        "recipe.yaml",
        "trials.jsonl",
        *ENGINES,
    }
    assert sum(node.is_int8 for node in result.report.nodes) == 5
    assert result.engine_error is None


def test_the_same_job_leaves_the_same_bytes(cnn: Model, tmp_path: Path) -> None:
    names = ("stats.safetensors", "calibration.cache", "calibration.json", "model.int8.onnx", "model.fp16.onnx")
    for run in ("a", "b"):
        quantized(cnn, tmp_path / run, method="entropy")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_an_unwritable_folder_is_found_before_any_work(cnn: Model, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    class Untouched(ArraySource):
        def __iter__(self) -> Any:
            raise AssertionError("the data was read")

    with pytest.raises(OutputError, match="cannot write"):
        quantized(cnn, file / "out", Untouched("images.npz", {"x": images(8)}, 4))


@pytest.mark.parametrize("parameter", ["data", "test_data"])
@pytest.mark.parametrize("place", ["", "class"])
def test_a_folder_of_data_takes_no_results(cnn: Model, tmp_path: Path, parameter: str, place: str) -> None:
    folder = tmp_path / "data"
    (folder / place).mkdir(parents=True)
    np.savez(folder / place / "a.npz", x=images(8))
    asked: dict[str, Any] = {parameter: folder}
    with pytest.raises(UsageError, match=rf"holds files of `{parameter}`"):
        quantized(cnn, folder / place, **asked)
    assert [path.name for path in (folder / place).iterdir()] == ["a.npz"]


@pytest.mark.parametrize("place", ["", "class"])
def test_results_may_lie_beside_the_data_and_are_not_read_as_data(cnn: Model, tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for index in range(10):
        np.savez(tmp_path / place / f"{index}.npz", x=images(4, seed=index))
    first = quantized(cnn, tmp_path / "int8", tmp_path)
    again = quantized(cnn, tmp_path / "int8", tmp_path)
    assert again.report.fingerprint == first.report.fingerprint


def test_a_name_that_a_cache_cannot_hold_costs_only_the_cache(cnn: Model, tmp_path: Path) -> None:
    proto = onnx.load(cnn.path)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["two\nlines" if name == "r1" else name for name in names]
    onnx.save(proto, tmp_path / "m.onnx")
    result = quantized(load_model(tmp_path / "m.onnx"), tmp_path / "out")
    missing = "there is no calibration.cache: tensor name 'two\\nlines'"
    assert sum(missing in warning for warning in result.warnings) == 1
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written >= {"model.int8.onnx", "calibration.json", "report.html"}
    assert "calibration.cache" not in written


def test_a_refused_run_leaves_no_empty_folder(cnn: Model, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for out in (tmp_path / "new" / "int8", empty):
        with pytest.raises(DataError):
            quantized(cnn, out, [{"x": np.zeros((1, 3), np.float32)}] * 8)
    assert not (tmp_path / "new").exists()
    assert empty.is_dir()  # it is the user's


def test_nothing_of_an_earlier_run_stays_beside_the_new_results(
    cnn: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantized(cnn, tmp_path / "out")
    for name in ENGINES:
        (tmp_path / "out" / name).write_bytes(b"old")
    assert "removed" not in caplog.text
    quantized(cnn, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.engine*"))
    assert "the engines of an earlier run are removed: model.int8.engine, model.fp16.engine\n" in caplog.text


def test_removing_the_results_of_another_model_is_warned_of(
    cnn: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantized(cnn, tmp_path / "out")
    quantized(load_model(residual_cnn(tmp_path / "other.onnx", seed=1)), tmp_path / "out")
    assert "the results of another model are removed: report.json, " in caplog.text


@pytest.mark.parametrize("name", ["model.fp16.onnx", "model.int8.onnx", "model.transformed.onnx"])
def test_the_model_itself_is_never_replaced(cnn: Model, tmp_path: Path, name: str) -> None:
    moved = cnn.path.rename(tmp_path / name)
    before = moved.read_bytes()
    with pytest.raises(UsageError, match="would replace the model"):
        quantized(load_model(moved), tmp_path)
    assert moved.read_bytes() == before


def test_a_failing_metric_fails_before_the_calibration_and_leaves_the_last_run(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def broken(_run: object) -> dict[str, float]:
        raise ZeroDivisionError("no labels")

    with pytest.raises(DataError, match="no labels"):
        quantized(cnn, tmp_path / "out", source(20), method="mse", evaluate=broken)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("method", "left"),
    [("mse", {"stats.safetensors", "trials.jsonl"}), ("minmax", {"stats.safetensors", "trials.jsonl", "recipe.yaml"})],
)
def test_an_interrupted_run_leaves_no_recipe_but_the_one_it_repeats(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, left: set[str]
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    quantized(cnn, tmp_path / "out")
    monkeypatch.setattr("trt_ptq.pipeline.tune_recipe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quantized(cnn, tmp_path / "out", method=method)
    assert {file.name for file in (tmp_path / "out").iterdir()} == left


def test_another_seed_of_the_data_changes_the_statistics(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path / "a")
    quantized(cnn, tmp_path / "b", source(seed=1))
    first, second = (load_statistics(tmp_path / run / "stats.safetensors") for run in ("a", "b"))
    assert first.data != second.data
    assert not np.isclose(first.tensors["y" if "y" in first.tensors else "r1"].amax, second.tensors["r1"].amax)
