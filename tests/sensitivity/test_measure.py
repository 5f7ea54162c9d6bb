"""What INT8 costs layer by layer: the incremental way against whole models, and figures with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.calibration.test_collector import Given
from tests.networks import images, residual_cnn, sabotaged_cnn, sequences, transformer_block, two_sided_cnn
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS, Percentile
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.errors import DataError
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.sensitivity import layer_groups
from trt_ptq.sensitivity.measure import LayerSensitivity, measure_sensitivity, rank_layers
from trt_ptq.transforms.rounded_weights import round_weights
from trt_ptq.types import Array

IMAGES = Given([images(4, seed=7), images(3, seed=8)])
SEQUENCES = Given([sequences(2, 9, seed=7), sequences(3, 5, seed=8)])


def table_of(model: Model, source: Given, attention: bool = False) -> CalibrationTable:
    return derive_table(
        collect_statistics(model, source, select_calibration_tensors(model, attention=attention)), METHODS["minmax"]
    )


def by_node(layers: Sequence[LayerSensitivity]) -> dict[str, LayerSensitivity]:
    return {layer.node: layer for layer in layers}


def plain_ratio(model: Model, changed: Path, source: Given) -> float:
    """Noise over signal of output y, with Q/DQ computed as it is written, by running both models whole."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    wanted, got = (ort.InferenceSession(path, options) for path in (model.path, changed))
    noise = signal = 0.0
    for array in source.arrays:
        reference = wanted.run(["y"], {"x": array})[0].astype(np.float64)
        noise += float(np.square(got.run(["y"], {"x": array})[0] - reference).sum())
        signal += float(np.square(reference).sum())
    return noise / signal


@pytest.fixture(params=["cnn", "transformer", "transformer with attention"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Model, Given, bool]:
    if request.param == "cnn":
        return load_model(residual_cnn(tmp_path / "m.onnx")), IMAGES, False
    return load_model(transformer_block(tmp_path / "m.onnx")), SEQUENCES, "with" in request.param


def test_one_layer_in_int8_costs_what_the_whole_model_with_it_does(
    subject: tuple[Model, Given, bool], tmp_path: Path
) -> None:
    model, source, attention = subject
    table = table_of(model, source, attention)
    every = [node.output for node in insert_qdq(model, table, attention=attention).nodes]
    measured = measure_sensitivity(model, table, source, attention=attention, all_but_one=False)
    layers = [layer for layer in measured if layer.op_type != "Add"]  # which is in INT8 with its convolution only
    assert len(layers) == (3 if "f" in table.amax else 8 if attention else 6)
    for layer in layers:
        others = [name for name in every if name != layer.node]
        save_model(insert_qdq(model, table, others, attention).model, tmp_path / "one.onnx")
        assert layer.alone == pytest.approx(plain_ratio(model, tmp_path / "one.onnx", source), rel=1e-3), layer.node


def test_all_layers_but_one_cost_what_the_whole_model_without_it_does(
    subject: tuple[Model, Given, bool], tmp_path: Path
) -> None:
    model, source, attention = subject
    table = table_of(model, source, attention)
    layers = measure_sensitivity(model, table, source, attention=attention)
    for layer in layers:
        save_model(insert_qdq(model, table, [layer.node], attention).model, tmp_path / "but_one.onnx")
        assert layer.all_but == pytest.approx(plain_ratio(model, tmp_path / "but_one.onnx", source), rel=1e-2), (
            layer.node
        )


def test_the_int8_kernels_of_onnx_runtime_say_nearly_the_same(
    subject: tuple[Model, Given, bool], tmp_path: Path
) -> None:
    model, source, attention = subject
    table = table_of(model, source, attention)
    every = [node.output for node in insert_qdq(model, table, attention=attention).nodes]
    for layer in measure_sensitivity(model, table, source, attention=attention, all_but_one=False):
        if layer.op_type != "Add":
            save_model(insert_qdq(model, table, set(every) - {layer.node}, attention).model, tmp_path / "one.onnx")
            sqnr = compare_models(model.path, tmp_path / "one.onnx", source).outputs["y"].sqnr_db
            assert -10 * math.log10(layer.alone) == pytest.approx(sqnr, abs=0.5), layer.node


def test_a_residual_add_is_measured_by_its_shortcut(cnn: Model) -> None:
    shortcut = by_node(measure_sensitivity(cnn, table_of(cnn, IMAGES), IMAGES))["a"]
    assert (shortcut.op_type, shortcut.weights_db) == ("Add", None)
    assert shortcut.alone > 0
    assert shortcut.activations_db == shortcut.both_db


@pytest.fixture
def sabotaged(tmp_path: Path) -> Model:
    return load_model(sabotaged_cnn(tmp_path / "m.onnx"))


def test_the_sabotaged_layer_ranks_first(sabotaged: Model) -> None:
    ranking = rank_layers(sabotaged, table_of(sabotaged, IMAGES), IMAGES)
    assert (next(iter(ranking.errors)), ranking.agreement) == ("c3", 1)


def test_batches_that_rank_layers_otherwise_do_not_agree(tmp_path: Path) -> None:
    model = load_model(two_sided_cnn(tmp_path / "m.onnx"))
    positive, negative = np.abs(images(4)), -np.abs(images(4))
    table = table_of(model, Given([positive, negative]))
    assert rank_layers(model, table, Given([positive, negative])).agreement == 0
    assert list(rank_layers(model, table, Given([negative, negative])).errors) == ["negative", "positive"]


def test_a_single_batch_does_not_say_whether_others_agree(sabotaged: Model) -> None:
    assert math.isnan(rank_layers(sabotaged, table_of(sabotaged, IMAGES), Given(IMAGES.arrays[:1])).agreement)


def test_weights_that_were_rounded_by_data_are_ranked_as_they_are(tmp_path: Path) -> None:
    model = load_model(transformer_block(tmp_path / "m.onnx"))
    table, stored = table_of(model, SEQUENCES), round_weights(model, SEQUENCES, tmp_path / "w.int8")
    errors = rank_layers(model, table, SEQUENCES, stored_weights=stored).errors
    every = [node.output for node in insert_qdq(model, table).nodes]
    assert errors != rank_layers(model, table, SEQUENCES).errors
    for name, error in errors.items():
        save_model(insert_qdq(model, table, {*every} - {name}, stored_weights=stored).model, tmp_path / "one.onnx")
        assert error == pytest.approx(plain_ratio(model, tmp_path / "one.onnx", SEQUENCES), rel=1e-3), name


@pytest.mark.parametrize(("limit", "value"), [("_MAX_LAYERS", 2), ("_MAX_WEIGHTS", 1)])
def test_layers_in_several_groups_have_the_same_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    model = load_model(transformer_block(tmp_path / "m.onnx"))
    table = table_of(model, SEQUENCES)
    at_once = rank_layers(model, table, SEQUENCES).errors
    monkeypatch.setattr(layer_groups, limit, value)
    assert rank_layers(model, table, SEQUENCES).errors == pytest.approx(at_once, rel=1e-5)


def test_only_without_the_sabotaged_layer_the_rest_is_good(sabotaged: Model) -> None:
    layers = by_node(measure_sensitivity(sabotaged, table_of(sabotaged, IMAGES), IMAGES))
    without = {name: layer.all_but for name, layer in layers.items()}
    assert without.pop("c3") < 0.001  # type: ignore[operator]
    assert all(value > 0.5 for value in without.values() if value is not None)


def test_the_error_of_activations_is_told_from_that_of_weights(sabotaged: Model) -> None:
    wild = by_node(measure_sensitivity(sabotaged, table_of(sabotaged, IMAGES), IMAGES, all_but_one=False))["c3"]
    assert wild.weights_db is not None and wild.activations_db is not None
    assert wild.activations_db < 5 < wild.weights_db


def test_clipping_is_told_from_rounding(cnn: Model) -> None:
    statistics = collect_statistics(cnn, IMAGES, select_calibration_tensors(cnn))
    shares = {}
    for percentile in (100.0, 90.0):
        table = derive_table(statistics, Percentile(percentile))
        shares[percentile] = by_node(measure_sensitivity(cnn, table, IMAGES, all_but_one=False))["c2"].clipping_fraction
    assert shares[100.0] == 0
    assert shares[90.0] is not None and shares[90.0] > 0.9


def test_a_users_metric_is_of_the_model_with_that_layer_in_int8(sabotaged: Model) -> None:
    feeds = {"x": images(4, seed=7)}
    wanted = ort.InferenceSession(sabotaged.path).run(None, feeds)[0]

    def quality(run: Callable[[dict[str, Array]], dict[str, Array]]) -> dict[str, float]:
        return {"quality": 1 - float(np.square(run(feeds)["y"] - wanted).sum() / np.square(wanted).sum())}

    layers = measure_sensitivity(
        sabotaged, table_of(sabotaged, IMAGES), IMAGES, all_but_one=False, metric=UserMetric(quality, "quality")
    )
    metrics = {layer.node: layer.metrics["quality"] for layer in layers}
    assert metrics.pop("c3") < 0.5
    assert min(metrics.values()) > 0.99


def test_without_batches_there_is_nothing_to_measure_on(cnn: Model) -> None:
    with pytest.raises(DataError, match="no batches to measure on"):
        rank_layers(cnn, table_of(cnn, IMAGES), Given([]))
