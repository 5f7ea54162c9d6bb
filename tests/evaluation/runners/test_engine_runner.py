"""Stand-in: engines and ONNX models behind one protocol; each stand-in engine is an ONNX file (standin_engines.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import trt_ptq
from tests.cli.run import refused
from tests.cli.run import trt_ptq as run_command
from tests.evaluation.runners.standin_engines import LARGEST, use_standin_engines
from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.onnx_io.load import Model

BATCHES = [images(4, seed=index) for index in range(3)]


@pytest.fixture(autouse=True)
def _standins(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin_engines(monkeypatch)


@pytest.fixture
def int8(cnn: Model, tmp_path: Path) -> Path:
    table = trt_ptq.calibrate(cnn, BATCHES).table("minmax")
    trt_ptq.quantize_model(cnn, table, high_precision="fp32").save(tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


@pytest.fixture
def engine(int8: Path) -> Path:
    return Path(shutil.copy(int8, int8.with_suffix(".engine")))


def mean(run: Any) -> dict[str, float]:
    return {"mean": float(np.abs(run({"x": BATCHES[0]})["y"]).mean())}


def test_an_engine_is_compared_with_onnx_models_on_either_side(cnn: Model, int8: Path, engine: Path) -> None:
    expected = trt_ptq.compare(cnn, int8, BATCHES)
    assert trt_ptq.compare(cnn, engine, BATCHES).outputs == expected.outputs
    assert trt_ptq.compare(int8, engine, BATCHES).outputs["y"].max_abs == 0
    assert trt_ptq.compare(engine, cnn, BATCHES).outputs["y"].top1 == expected.outputs["y"].top1 is not None


def test_the_users_metric_runs_engines(cnn: Model, int8: Path, engine: Path) -> None:
    found = trt_ptq.compare(cnn, engine, BATCHES, evaluate=mean, max_drop=0.09)
    assert found.candidate_metrics == trt_ptq.compare(cnn, int8, BATCHES, evaluate=mean).candidate_metrics


def test_a_batch_that_does_not_fit_the_engine_is_named(cnn: Model, engine: Path) -> None:
    with pytest.raises(trt_ptq.DataError, match="does not fit"):
        trt_ptq.compare(cnn, engine, [images(LARGEST + 1)])


def test_an_input_that_nothing_in_the_engine_reads_is_left_out(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    weights = [weight("w", CHANNELS, CHANNELS, 1, 1)]
    both = write(tmp_path / "both.onnx", nodes, weights, [image_input(), image_input("unread")], ["y"])
    only = write(tmp_path / "one.engine", nodes, weights, [image_input()], ["y"])
    data = [{"x": images(2), "unread": images(2)}]
    assert trt_ptq.compare(both, only, data).outputs["y"].max_abs == 0


def test_inner_tensors_are_compared_in_the_order_of_the_graph(int8: Path, engine: Path) -> None:
    layers = trt_ptq.compare(int8, engine, BATCHES, layers=True).layers
    assert list(layers) == ["r1", "r2", "f"]
    assert all(tensor.sqnr_db > 60 for tensor in layers.values())


def test_layers_of_a_float_model_are_the_outputs_of_weighted_nodes(cnn: Model, tmp_path: Path) -> None:
    engine = Path(shutil.copy(cnn.path, tmp_path / "float.engine"))
    assert list(trt_ptq.compare(cnn, engine, BATCHES, layers=True).layers) == ["c1", "c2"]


def test_layers_need_a_model_and_its_engine(cnn: Model, engine: Path) -> None:
    for pair in ((engine, cnn.path), (cnn.path, cnn.path), (engine, engine)):
        with pytest.raises(trt_ptq.UsageError, match="`layers` needs an ONNX model as the reference"):
            trt_ptq.compare(*pair, BATCHES, layers=True)


def test_the_command_shows_the_tensors(int8: Path, engine: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images(4))
    arguments = ("compare", int8, engine, "--data", tmp_path / "data.npz", "--layers")
    shown = run_command(*arguments)
    assert shown.returncode == 0
    assert "Inner tensors" in shown.stdout
    assert list(json.loads(run_command(*arguments, "--json").stdout)["comparison"]["layers"]) == ["r1", "r2", "f"]
    swapped = ("compare", engine, int8, "--data", tmp_path / "data.npz", "--layers")
    assert "--layers needs an ONNX model" in refused(*swapped)
