"""The range method of each tensor, chosen by the error at the model's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from tests.calibration.test_collector import Given
from tests.networks import CHANNELS, image_input, images, transformer_block, weight, write
from tests.networks import sequences as texts
from trt_ptq.calibration.collector import collect
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import COMPARED
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.calibrators.table.table_file import load_table, save_table
from trt_ptq.errors import TableError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_pairs, plan_qdq
from trt_ptq.tuning.per_tensor_methods import select_methods_per_tensor

IMAGES = Given([images(4, seed=7), images(3, seed=8)])


def plain_ratio(model: Model, table: CalibrationTable, tensor: str, source: Given, folder: Path) -> float:
    """Noise over signal of y with only `tensor` (and what takes its range) in INT8, by running the whole model."""
    changed = model.to_ir()
    plan = plan_qdq(model, changed.graph, table)
    inputs = [one for one in plan.inputs if one.axis is None and plan.range_of(one.tensor) == tensor]
    insert_pairs(changed.graph, model.opset, plan, table, inputs)
    save_model(changed, folder / "one.onnx")
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    noise = signal = 0.0
    for array in source.arrays:
        wanted = ort.InferenceSession(model.path, options).run(["y"], {"x": array})[0].astype(np.float64)
        got = ort.InferenceSession(folder / "one.onnx", options).run(["y"], {"x": array})[0]
        noise, signal = noise + float(np.square(got - wanted).sum()), signal + float(np.square(wanted).sum())
    return noise / signal


def check_against_whole_models(model: Model, source: Given, folder: Path) -> CalibrationTable:
    statistics = collect(model, source, select_calibration_tensors(model))
    chosen = select_methods_per_tensor(model, statistics, source)
    for tensor in statistics.tensors:
        ratios = [plain_ratio(model, derive_table(statistics, one), tensor, source, folder) for one in COMPARED]
        got = plain_ratio(model, chosen, tensor, source, folder)
        assert got == pytest.approx(min(ratios), rel=1e-2), (tensor, chosen.methods[tensor])
    return chosen


def test_no_other_method_has_less_error_on_a_cnn(cnn: Model, tmp_path: Path) -> None:
    check_against_whole_models(cnn, IMAGES, tmp_path)


def test_no_other_method_has_less_error_on_a_transformer(tmp_path: Path) -> None:
    source = Given([texts(2, 9, seed=7), texts(3, 5, seed=8)])
    check_against_whole_models(load_model(transformer_block(tmp_path / "m.onnx")), source, tmp_path)


@pytest.fixture
def outliers(tmp_path: Path) -> Model:
    """x -> Conv c -> y, where one value of x in a thousand is very large and its channel has no weight."""
    kernel = helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1])
    w = weight("w", CHANNELS, CHANNELS, 1, 1)
    values = np.frombuffer(w.raw_data, np.float32).reshape(CHANNELS, CHANNELS).copy()
    values[:, 0] = 0
    w.raw_data = values.tobytes()
    return load_model(
        write(tmp_path / "m.onnx", [kernel, helper.make_node("Relu", ["c"], ["y"])], [w], [image_input()], ["y"])
    )


def spiked() -> Given:
    array = images(8)
    array[:, 0] = 0
    array[:, 0, 0, 0] = 500.0
    return Given([array])


def test_values_that_do_not_matter_are_clipped(outliers: Model) -> None:
    statistics = collect(outliers, spiked(), select_calibration_tensors(outliers))
    chosen = select_methods_per_tensor(outliers, statistics, spiked())
    assert chosen.methods == {"x": "percentile 99.9"}
    assert chosen.amax["x"] == derive_table(statistics, COMPARED[3]).amax["x"] < 2


def test_what_shares_a_range_has_one_method(tmp_path: Path) -> None:
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **pads),
        helper.make_node("Conv", ["c1", "w2"], ["c2"], **pads),
        helper.make_node("Concat", ["c1", "c2"], ["cat"], axis=1),
        helper.make_node("Conv", ["cat", "w3"], ["y"], **pads),
    ]
    weights = [weight(f"w{one}", CHANNELS, CHANNELS, 3, 3) for one in (1, 2)]
    weights.append(weight("w3", CHANNELS, 2 * CHANNELS, 3, 3))
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    chosen = check_against_whole_models(model, IMAGES, tmp_path)
    assert chosen.amax["c1"] == chosen.amax["c2"] == chosen.amax["cat"]
    assert chosen.methods["c1"] == chosen.methods["c2"] == chosen.methods["cat"]


def test_the_methods_are_in_the_table_file(cnn: Model, tmp_path: Path) -> None:
    chosen = select_methods_per_tensor(cnn, collect(cnn, IMAGES, select_calibration_tensors(cnn)), IMAGES)
    save_table(chosen, tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["provenance"]["method"] == "auto"
    assert content["methods"] == chosen.methods
    assert chosen.methods.keys() == chosen.amax.keys()
    assert load_table(tmp_path / "t.json") == chosen


def test_a_method_of_no_tensor_is_damage(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    save_table(select_methods_per_tensor(cnn, collect(cnn, IMAGES, select_calibration_tensors(cnn)), IMAGES), path)
    content = json.loads(path.read_text())
    content["methods"]["nowhere"] = "mse"
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match="not a calibration table"):
        load_table(path)
