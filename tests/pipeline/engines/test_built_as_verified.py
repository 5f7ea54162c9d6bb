"""The files of a run lead to the very model that was verified, wherever they are used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import trt_ptq
from tests.networks import sequences, transformer_block
from tests.pipeline.quantizing import chain_path, quantized
from trt_ptq.api.inputs.table_input import check_not_transformed
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.sources import ArraySource
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.pipeline import quantize

CONFIGS: list[dict[str, Any]] = [
    {},
    {"nodes_to_exclude": ["c2"]},
    {"nodes_to_exclude": ["c2"], "high_precision": "fp32"},
    {"techniques": ("bias-correction",)},
    {"techniques": ("bias-correction",), "high_precision": "fp32", "method": "entropy"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_model_and_table_give_the_verified_bytes(cnn: Model, tmp_path: Path, config: dict[str, Any]) -> None:
    quantized(cnn, tmp_path, **config)
    trt_ptq.quantize_model(cnn.path, tmp_path / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.int8.onnx").read_bytes()


def test_an_engine_is_built_of_the_verified_model(cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bytes] = []

    def build(spec: EngineSpec, _backend: str) -> EngineManifest:
        built.append(spec.onnx.read_bytes())
        return EngineManifest.model_construct()

    monkeypatch.setattr("trt_ptq.api.engine._build_engine", build)
    quantized(cnn, tmp_path, nodes_to_exclude=["c2"])
    trt_ptq.build_engine(cnn.path, tmp_path / "e.engine", table=tmp_path / "calibration.json")
    assert built == [(tmp_path / "model.int8.onnx").read_bytes()]


def test_a_transformed_model_and_its_table_give_the_verified_bytes(tmp_path: Path) -> None:
    chain = load_model(chain_path(tmp_path))
    quantized(chain, tmp_path, techniques=("equalization",))
    model = tmp_path / "model.transformed.onnx"
    trt_ptq.quantize_model(model, tmp_path / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.int8.onnx").read_bytes()


@pytest.mark.parametrize("techniques", [("gptq",), ("smoothquant", "gptq"), ("gptq", "bias-correction")], ids=str)
def test_weights_rounded_by_data_are_in_the_transformed_model(tmp_path: Path, techniques: tuple[str, ...]) -> None:
    block = transformer_block(tmp_path / "m.onnx")
    data = ArraySource("x.npz", {"x": sequences(40, 10)}, batch_size=4)
    out = tmp_path / "int8"
    result = quantized(block, out, data, techniques=techniques, nodes_to_exclude=["down"])
    assert any("model.transformed.onnx" in warning for warning in result.warnings)
    transformed = out / "model.transformed.onnx"
    trt_ptq.quantize_model(transformed, out / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (out / "model.int8.onnx").read_bytes()
    with pytest.raises(trt_ptq.TableError, match=r"ranges are those of .*model\.transformed\.onnx.*: use that model"):
        trt_ptq.quantize_model(block, out / "calibration.json")
    with pytest.raises(trt_ptq.TableError, match="weights differ"):
        trt_ptq.quantize_model(block, trt_ptq.load_table(out / "calibration.json"))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(transformed).graph.initializer}
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(block).graph.initializer}
    if "smoothquant" not in techniques:
        np.testing.assert_array_equal(weights["w_down"], original["w_down"])  # excluded
    assert (weights["w_up"] != original["w_up"]).any()


@pytest.mark.parametrize("techniques", [("gptq",), ("smoothquant", "gptq")], ids=str)
def test_a_recipe_with_gptq_gives_the_same_bytes_again(tmp_path: Path, techniques: tuple[str, ...]) -> None:
    block = transformer_block(tmp_path / "m.onnx")
    data = ArraySource("x.npz", {"x": sequences(40, 10)}, batch_size=4)
    quantized(block, tmp_path / "1", data, techniques=techniques, mode="w8a16", max_drop="5%")
    quantize(
        block,
        data,
        output_dir=tmp_path / "2",
        config=QuantizeConfig(recipe=tmp_path / "1" / "recipe.yaml", backend="none"),
    )
    first, again = ((tmp_path / name / "model.int8.onnx").read_bytes() for name in "12")
    assert first == again


def test_weights_are_rounded_without_the_values_that_calibration_skips(tmp_path: Path) -> None:
    x = sequences(40, 10)
    x[0, 0, 0] = np.nan
    options: dict[str, Any] = {"techniques": ("gptq",), "mode": "w8a16", "max_drop": "100%", "search": False}
    data = ArraySource("x.npz", {"x": x}, batch_size=4)
    quantized(transformer_block(tmp_path / "m.onnx"), tmp_path, data, nonfinite="skip", **options)
    assert (tmp_path / "model.transformed.onnx").is_file()


def test_a_cache_of_a_transformed_model_is_refused_for_the_original(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = load_model(chain_path(tmp_path))
    out = tmp_path / "int8"
    quantized(chain, out, techniques=("equalization",))
    cache = out / "calibration.cache"
    with pytest.raises(trt_ptq.TableError, match=r"use that model instead of .*m\.onnx, and .*calibration\.json"):
        trt_ptq.quantize_model(chain.path, cache)
    with pytest.raises(trt_ptq.TableError, match=r"model\.transformed\.onnx"):
        trt_ptq.build_engine(chain.path, tmp_path / "e.engine", table=cache)
    with pytest.raises(trt_ptq.TableError, match=r"model\.transformed\.onnx"):
        check_not_transformed(cache, trt_ptq.load_table(cache), chain)  # what `build --implicit` calls
    assert trt_ptq.quantize_model(out / "model.transformed.onnx", cache).nodes
    assert trt_ptq.quantize_model(chain.path, cache, allow_other_model=True).nodes
    assert "calibration.json" in caplog.text


def test_more_nodes_can_be_excluded(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path, nodes_to_exclude=["c2"])
    nodes = trt_ptq.quantize_model(cnn.path, tmp_path / "calibration.json", nodes_to_exclude="c1").nodes
    assert not any(node.is_int8 for node in nodes if node.output in ("c1", "c2"))


def test_a_cache_which_cannot_say_what_was_excluded_names_the_table_that_can(
    cnn: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantized(cnn, tmp_path, nodes_to_exclude=["c2"])
    with caplog.at_level(logging.WARNING, "trt_ptq"):
        trt_ptq.quantize_model(cnn.path, tmp_path / "calibration.cache")
    assert "calibration.json to get the model that was verified" in caplog.text


def test_tables_that_quantize_did_not_make_have_no_recipe(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path)
    trt_ptq.load_statistics(tmp_path / "stats.safetensors").table("minmax").save(tmp_path / "table.json")
    made = json.loads((tmp_path / "calibration.json").read_text())
    assert made.pop("recipe")["high_precision"] == "fp16"
    assert (tmp_path / "table.json").read_text() == json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def test_a_table_with_an_int8_cache_of_one_scale_is_refused(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path)
    content = json.loads((tmp_path / "calibration.json").read_text())
    del content["recipe"]["cache_scales"]
    content["recipe"]["int8_cache"] = True
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    with pytest.raises(trt_ptq.TableError, match=r"calibration\.json: it has an INT8 cache.*run quantize again"):
        trt_ptq.load_table(tmp_path / "calibration.json")


@pytest.mark.parametrize("damage", [{"high_precision": "int4"}, {"magnitudes": {"x": "large"}}, {"attention": None}])
def test_a_damaged_recipe_is_refused(cnn: Model, tmp_path: Path, damage: dict[str, Any]) -> None:
    quantized(cnn, tmp_path)
    content = json.loads((tmp_path / "calibration.json").read_text())
    content["recipe"] = {**content["recipe"], **damage}
    if damage == {"attention": None}:
        del content["recipe"]["attention"]
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    with pytest.raises(trt_ptq.TableError, match="not a calibration table"):
        trt_ptq.load_table(tmp_path / "calibration.json")
