"""The modes of `quantize`: INT8 weights alone, and layers that become weight-only where they lose too much."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

import trt_ptq
from tests.networks import images, sabotaged_cnn
from tests.pipeline.quantizing import quantized
from trt_ptq import QuantizeConfig, load_recipe, quantize_model
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.recipe import LayerMethod, Recipe


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)


@pytest.fixture
def sabotaged(tmp_path: Path) -> Model:
    return load_model(sabotaged_cnn(tmp_path / "m.onnx"))


def test_w8a16_quantizes_weights_alone(sabotaged: Model, tmp_path: Path) -> None:
    report = quantized(sabotaged, tmp_path / "out", mode="w8a16", search=False).report
    assert [trial.name for trial in report.trials] == ["weights"]
    assert report.int8_summary == "4 of 4 quantizable nodes have INT8 weights only"
    assert report.num_used_ranges == 0
    op_types = {node.op_type for node in onnx.load(tmp_path / "out" / "model.int8.onnx").graph.node}
    assert "DequantizeLinear" in op_types
    assert "QuantizeLinear" not in op_types
    assert load_recipe(tmp_path / "out" / "recipe.yaml").weight_only == ("c1", "c2", "c3", "y0")


def test_mixed_makes_the_sabotaged_layer_weight_only(sabotaged: Model, tmp_path: Path) -> None:
    report = quantized(sabotaged, tmp_path / "out", mode="mixed", max_drop="6%", techniques=()).report
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert (recipe.weight_only, recipe.nodes_to_exclude) == (("c3",), ())
    assert report.trials[-1].name == "mixed precision: 1 of 4 layers weight-only"


def test_recipe_and_table_give_the_same_bytes(sabotaged: Model, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    quantized(sabotaged, out, mode="mixed", max_drop="6%", techniques=())
    quantized(sabotaged, again, method="auto", recipe=out / "recipe.yaml")
    quantize_model(sabotaged.path, out / "calibration.json").save(tmp_path / "by_table.onnx")
    expected = (out / "model.int8.onnx").read_bytes()
    assert (again / "model.int8.onnx").read_bytes() == expected
    assert (tmp_path / "by_table.onnx").read_bytes() == expected


def test_a_recipe_may_name_range_methods_of_layers_by_pattern(sabotaged: Model, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    quantized(sabotaged, out, images(40), search=False, techniques=(), method="minmax")
    path = out / "recipe.yaml"
    written = path.read_text()
    path.write_text(written.replace("layer_methods: []", "layer_methods: [{layers: ['c[23]'], method: percentile 99}]"))
    result = quantized(sabotaged, again, images(40), method="auto", recipe=path)
    assert result.report.method == "minmax; percentile 99 for 2 tensors"
    plain, changed = trt_ptq.load_table(out / "calibration.json"), trt_ptq.load_table(again / "calibration.json")
    assert changed.amax["x"] == plain.amax["x"]
    assert sum(changed.amax[name] < plain.amax[name] for name in plain.amax) >= 2
    (by_layer,) = load_recipe(again / "recipe.yaml").layer_methods
    assert (by_layer.layers, by_layer.method) == (("c2", "c3"), "percentile 99")
    path.write_text(written.replace("layer_methods: []", "layer_methods: [{layers: [c9], method: mse}]"))
    with pytest.raises(UsageError, match=r"recipe\.yaml: layer_methods: no quantizable node matches 'c9'"):
        quantized(sabotaged, again, images(40), method="auto", recipe=path)


def test_two_range_methods_for_one_tensor_are_refused_before_a_calibration(cnn: Model, tmp_path: Path) -> None:
    methods = LayerMethod(layers=("c2",), method="mse"), LayerMethod(layers=("a",), method="minmax")  # both read r1
    recipe = Recipe(model=cnn.identity, method="mse", layer_methods=methods)
    with pytest.raises(UsageError, match=r"^recipe: layer_methods: .* read the same tensor 'r1'"):
        quantized(cnn, tmp_path / "out", recipe=recipe, method="auto")
    assert not (tmp_path / "out").exists()


def test_a_recipe_may_name_weight_only_nodes_by_pattern(sabotaged: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quantized(sabotaged, out, images(40), search=False, techniques=())
    path = out / "recipe.yaml"
    path.write_text(path.read_text().replace("weight_only: []", "weight_only: ['c[13]']"))
    quantized(sabotaged, tmp_path / "again", images(40), method="auto", recipe=path)
    assert load_recipe(tmp_path / "again" / "recipe.yaml").weight_only == ("c1", "c3")
    path.write_text(path.read_text().replace("'c[13]'", "'d*'"))
    with pytest.raises(UsageError, match="weight_only: no quantizable node matches 'd"):
        quantized(sabotaged, tmp_path / "again", images(40), method="auto", recipe=path)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="`mode` must be one of w8a8, w8a16, mixed, not 'w4a16'"):
        QuantizeConfig(mode="w4a16")  # type: ignore[arg-type]
