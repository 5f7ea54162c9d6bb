"""`quantize` takes models and data in any form, with the same result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import trt_ptq
from tests.networks import images
from tests.pipeline.quantizing import quantized
from trt_ptq.onnx_io.load import Model

BATCHES = [images(4, seed=index) for index in range(10)]
FILES = ("calibration.cache", "model.int8.onnx", "model.fp16.onnx", "recipe.yaml")


class Fspath(os.PathLike[str]):
    """A path that is neither text nor a pathlib.Path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def loader(_tmp_path: Path) -> Any:
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader([{"x": torch.from_numpy(batch)} for batch in BATCHES], batch_size=None)


def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for index, batch in enumerate(BATCHES):
        np.savez(tmp_path / "data" / f"{index:02}.npz", x=batch)
    return tmp_path / "data"


@pytest.fixture
def expected(cnn: Model, tmp_path: Path) -> Path:
    quantized(cnn, tmp_path / "expected", BATCHES)
    return tmp_path / "expected"


@pytest.mark.parametrize(
    "data",
    [
        folder,
        lambda _: (batch for batch in BATCHES),
        lambda _: lambda: iter([{"x": batch} for batch in BATCHES]),
        loader,
    ],
    ids=["folder", "generator", "callable", "DataLoader"],
)
def test_every_form_of_data_gives_the_same_model(cnn: Model, tmp_path: Path, expected: Path, data: Any) -> None:
    quantized(cnn, tmp_path / "out", data(tmp_path))
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.parametrize("form", [str, Path, Fspath, onnx.load], ids=["text", "path", "PathLike", "proto"])
def test_every_form_of_model_gives_the_same_model(cnn: Model, tmp_path: Path, expected: Path, form: Any) -> None:
    result = quantized(form(cnn.path), tmp_path / "out", BATCHES)
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (expected / name).read_bytes(), name
    assert result.report.model in (str(cnn.path), "onnx.ModelProto 'network'")


def test_a_model_without_a_file_is_saved_for_later_commands(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trt_ptq.api.inputs.model_input._LARGEST_IN_ONE_FILE", 1)
    out = tmp_path / "out"
    result = quantized(onnx.load(cnn.path), out, BATCHES)
    float_model = out / "model.fp32.onnx"
    assert [model.file for model in result.report.models if model.precision == "fp32"] == ["model.fp32.onnx"]
    trt_ptq.quantize_model(float_model, out / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (out / "model.int8.onnx").read_bytes()
    before = float_model.read_bytes()
    quantized(float_model, out, BATCHES)
    assert float_model.read_bytes() == before
    assert trt_ptq.load_model(float_model).identity == cnn.identity


def test_the_report_names_the_data(cnn: Model, tmp_path: Path) -> None:
    data = folder(tmp_path)
    assert quantized(cnn, tmp_path / "a", data).report.data == str(data)
    assert quantized(cnn, tmp_path / "b", BATCHES).report.data == "list"


def test_test_data_takes_every_form_too(cnn: Model, tmp_path: Path) -> None:
    report = quantized(cnn, tmp_path / "out", BATCHES, test_data=(batch for batch in BATCHES[:3])).report
    assert (report.fingerprint.samples, report.held_out_samples) == (40, 12)


def test_a_metric_with_splits_selects_on_one_and_is_judged_on_the_other(cnn: Model, tmp_path: Path) -> None:
    splits: list[str] = []

    def accuracy(run: Any, split: str) -> dict[str, float]:
        run({"x": BATCHES[0]})
        splits.append(split)
        return {"accuracy": 1.0}

    result = quantized(cnn, tmp_path, BATCHES, evaluate=accuracy)
    assert result.passed
    assert splits.count("test") == 3
    assert "select" in splits


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"config": {"max_drop": 0.1}}, "`config`"),
        ({"evaluate": 1}, "`evaluate`"),
        ({"example_inputs": 1}, "`example_"),
    ],
)
def test_invalid_arguments_are_named(cnn: Model, tmp_path: Path, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(trt_ptq.UsageError, match=named):
        trt_ptq.quantize(cnn.path, BATCHES, output_dir=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_defaults_quantize_into_a_folder_called_int8(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = trt_ptq.quantize(cnn.path, BATCHES, config=trt_ptq.QuantizeConfig(backend="none", method="mse"))
    assert result.model_path == Path("int8/model.int8.onnx")
    assert result.model_path.is_file()
