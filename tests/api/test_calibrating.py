"""`calibrate` and `measure_sensitivity`: any form of model and data gives the same figures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import pytest
from rich.progress import track

import trt_ptq
from tests.networks import images, sabotaged_cnn
from trt_ptq.onnx_io.load import Model

torch = pytest.importorskip("torch")
T = TypeVar("T")
BATCHES = [images(4, seed=index) for index in range(5)]


def folder(tmp_path: Path) -> Path:
    data = tmp_path / "batches"
    data.mkdir()
    for index, batch in enumerate(BATCHES):
        np.savez(data / f"{index}.npz", x=batch)
    return data


def array_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", np.concatenate(BATCHES))
    return tmp_path / "images.npy"


def user_function(tmp_path: Path) -> str:
    (tmp_path / "data.py").write_text(
        "from tests.networks import images\n\n\ndef batches():\n    for index in range(5):\n"
        "        yield {'x': images(4, seed=index)}\n"
    )
    return f"{tmp_path / 'data.py'}:batches"


def loader(_tmp_path: Path) -> Any:
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(np.concatenate(BATCHES)))
    return torch.utils.data.DataLoader(dataset, batch_size=4)


def yielded() -> Iterator[Any]:
    yield from BATCHES


FORMS: dict[str, Any] = {
    "folder": folder,
    "text": lambda tmp_path: str(folder(tmp_path)),
    "array file": array_file,
    "user function": user_function,
    "list of arrays": lambda _: list(BATCHES),
    "list of dicts": lambda _: [{"x": batch} for batch in BATCHES],
    "generator": lambda _: yielded(),
    "callable": lambda _: yielded,
    "DataLoader": loader,
}


@pytest.fixture
def expected(cnn: Model) -> trt_ptq.Statistics:
    return trt_ptq.calibrate(cnn, [{"x": batch} for batch in BATCHES])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_statistics(
    cnn: Model, tmp_path: Path, expected: trt_ptq.Statistics, form: str
) -> None:
    statistics = trt_ptq.calibrate(cnn.path, FORMS[form](tmp_path), batch_size=4)
    statistics.save(tmp_path / "a.safetensors")
    expected.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("form", [str, Path, onnx.load, trt_ptq.load_model], ids=["text", "path", "proto", "loaded"])
def test_every_form_of_model_gives_the_same_statistics(cnn: Model, expected: trt_ptq.Statistics, form: Any) -> None:
    statistics = trt_ptq.calibrate(form(cnn.path), BATCHES)
    assert statistics.model == expected.model
    assert {name: tensor.amax for name, tensor in statistics.tensors.items()} == {
        name: tensor.amax for name, tensor in expected.tensors.items()
    }


def test_statistics_give_tables_that_are_saved_as_json_and_cache(expected: trt_ptq.Statistics, tmp_path: Path) -> None:
    table = expected.table("percentile", 99.9)
    for name in ("calibration.json", "calibration.cache"):
        table.save(tmp_path / name)
        assert trt_ptq.load_table(tmp_path / name).amax.keys() == table.amax.keys()


def test_a_model_without_its_file_leaves_nothing_behind(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    trt_ptq.calibrate(onnx.load(cnn.path), BATCHES)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"memory_limit": "4"}, "`memory_limit`"),
        ({"device": "tpu"}, "`device`"),
        ({"until_stable": 0}, "`until_stable`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"example_inputs": (1,)}, "`example_inputs`"),
    ],
)
def test_invalid_arguments_are_named(cnn: Model, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(trt_ptq.UsageError, match=named):
        trt_ptq.calibrate(cnn.path, BATCHES, **arguments)


def test_examples_for_a_loaded_model_are_refused(cnn: Model) -> None:
    with pytest.raises(trt_ptq.UsageError, match=r"`example_inputs` is for a torch\.nn\.Module"):
        trt_ptq.calibrate(cnn, BATCHES, example_inputs=(1,))


@pytest.mark.parametrize("model", [3, None, b"model"])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(trt_ptq.UsageError, match="`model` must be a path"):
        trt_ptq.calibrate(model, BATCHES)


def test_a_batch_that_does_not_fit_is_named(cnn: Model) -> None:
    with pytest.raises(trt_ptq.DataError, match="float64"):
        trt_ptq.calibrate(cnn, [batch.astype(np.float64) for batch in BATCHES])


def test_doubts_about_the_data_are_logged(cnn: Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trt_ptq"):
        trt_ptq.calibrate(cnn, BATCHES)
    assert any("20 calibration samples" in record.getMessage() for record in caplog.records)


def test_progress_is_reported_by_callback(cnn: Model) -> None:
    seen: list[tuple[str, int | None]] = []

    def progress(items: Iterable[T], description: str, total: int | None) -> Iterable[T]:
        seen.append((description, total))
        return items

    trt_ptq.calibrate(cnn, BATCHES, progress=progress)
    assert seen == [("Calibrating", 5)]


def test_tqdm_shows_progress(cnn: Model, capsys: pytest.CaptureFixture[str]) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm

    def progress(items: Any, description: str, total: int | None) -> Any:
        return tqdm(items, desc=description, total=total)

    trt_ptq.calibrate(cnn, BATCHES, progress=progress)
    assert "Calibrating: 100%" in capsys.readouterr().err


def test_rich_shows_progress(cnn: Model, capsys: pytest.CaptureFixture[str]) -> None:
    trt_ptq.calibrate(cnn, BATCHES, progress=track)
    assert "Calibrating" in capsys.readouterr().out


def test_sensitivity_needs_no_table(tmp_path: Path) -> None:
    model = sabotaged_cnn(tmp_path / "model.onnx")
    layers = trt_ptq.measure_sensitivity(model, BATCHES)
    table = trt_ptq.calibrate(model, BATCHES).table()
    assert layers == trt_ptq.measure_sensitivity(model, BATCHES, table=table)
    assert max(layers, key=lambda layer: layer.alone).node == "c3"


def test_excluded_layers_have_no_sensitivity(cnn: Model, tmp_path: Path) -> None:
    trt_ptq.calibrate(cnn, BATCHES).table().save(tmp_path / "table.json")
    layers = trt_ptq.measure_sensitivity(cnn, BATCHES, table=tmp_path / "table.json", nodes_to_exclude=["Conv"])
    assert {layer.op_type for layer in layers} == {"Gemm"}


def test_a_metric_of_sensitivity_on_other_values_than_the_data_is_warned_of(
    cnn: Model, caplog: pytest.LogCaptureFixture
) -> None:
    def metric(run: Any) -> dict[str, float]:
        return {"accuracy": float(run({"x": 255 * images(20)})["y"].argmax() >= 0)}

    trt_ptq.measure_sensitivity(cnn, images(20), evaluate=metric, nodes_to_include=["c1"])
    assert "`data` has" in caplog.text
    assert "preprocess both alike" in caplog.text
