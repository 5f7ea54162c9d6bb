"""`compare`: any two models, on any data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import trt_ptq
from tests.networks import images, transformer_block
from trt_ptq.onnx_io.load import Model

BATCHES = [images(4, seed=index) for index in range(5)]


@pytest.fixture
def int8(cnn: Model, tmp_path: Path) -> Path:
    table = trt_ptq.calibrate(cnn, BATCHES).table("minmax")
    trt_ptq.quantize_model(cnn, table).save(tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


def test_a_model_is_compared_by_the_fidelity_of_its_outputs(cnn: Model, int8: Path) -> None:
    comparison = trt_ptq.compare(cnn.path, int8, BATCHES)
    assert comparison.samples == 20
    assert comparison.losses == {"fidelity of y": comparison.outputs["y"].error}
    assert comparison.passed
    assert not trt_ptq.compare(cnn.path, int8, BATCHES, max_drop=0).passed


@pytest.mark.parametrize("form", [str, onnx.load, Path], ids=["text", "proto", "path"])
def test_every_form_of_model_compares_the_same(cnn: Model, int8: Path, form: Any) -> None:
    expected = trt_ptq.compare(cnn, int8, BATCHES)
    assert trt_ptq.compare(form(cnn.path), form(int8), BATCHES).outputs == expected.outputs


def test_the_users_metric_decides(cnn: Model, int8: Path) -> None:
    feeds = {"x": np.concatenate(BATCHES)}
    exact = ort.InferenceSession(cnn.path).run(None, feeds)[0]

    def error(run: Any) -> dict[str, float]:
        return {"distance to FP32": 1 + float(np.abs(run(feeds)["y"] - exact).mean())}

    lower = trt_ptq.compare(cnn.path, int8, BATCHES, evaluate=error, lower_is_better="distance to FP32", max_drop="90%")
    assert lower.losses["distance to FP32"] > 0
    assert lower.reference_metrics == {"distance to FP32": 1}


def test_a_metric_on_other_values_than_the_data_is_warned_of(cnn: Model, int8: Path) -> None:
    def metric(run: Any, scale: float) -> dict[str, float]:
        return {"accuracy": float(np.mean([run({"x": scale * images(20, seed=9)})["y"].argmax() >= 0]))}

    def warned(scale: float) -> list[str]:
        comparison = trt_ptq.compare(cnn.path, int8, BATCHES, evaluate=lambda run: metric(run, scale))
        return [warning for warning in comparison.warnings if "preprocess both alike" in warning]

    assert warned(1) == []
    assert [warning.partition(", but ")[2][:11] for warning in warned(255)] == ["`data` has "]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_drop": 2}, "`max_drop`"),
        ({"evaluate": 3}, "`evaluate`"),
        ({"lower_is_better": "bits"}, "`lower_is_better` names metrics of `evaluate`"),
        ({"evaluate": "nowhere.py:metric"}, "nowhere.py"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_invalid_arguments_are_named(cnn: Model, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(trt_ptq.UsageError, match=named):
        trt_ptq.compare(cnn, cnn, BATCHES, **arguments)


def test_a_model_that_takes_other_inputs_is_refused(cnn: Model, tmp_path: Path) -> None:
    other = transformer_block(tmp_path / "block.onnx")
    with pytest.raises(trt_ptq.ModelError, match=r"block\.onnx takes .*: compare a model with the one that it was"):
        trt_ptq.compare(cnn.path, other, BATCHES)
