"""INT8 nodes that a builder refuses (a builder written here): the model is made and built again without them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

import trt_ptq
from tests.networks import CHANNELS, image_input, images, weight, write
from tests.pipeline.engines.test_engine_step import manifest
from tests.pipeline.quantizing import quantized
from trt_ptq.api.mended_build import MAX_BUILDS_AGAIN
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError, UnsupportedLayerError
from trt_ptq.onnx_io.load import Model
from trt_ptq.recipe import load_recipe


class Refusing:
    """A builder that has no INT8 implementation for some nodes, given by their first output."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.int8_models: list[bytes] = []

    def __call__(self, spec: EngineSpec, _backend: str) -> EngineManifest:
        if spec.precision == "int8":
            self.int8_models.append(spec.onnx.read_bytes())
            for node in onnx.load(spec.onnx).graph.node:
                if node.output[0].partition(".")[0] in self.refused and ".dequantized" in node.input[0]:
                    raise UnsupportedLayerError(f"{spec.onnx}: no implementation", f"node_of_{node.output[0]}")
        return manifest(spec).model_copy(update={"refused_nodes": spec.refused_nodes})


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    refusing = Refusing()
    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", refusing)
    monkeypatch.setattr("trt_ptq.api.engine._build_engine", refusing)
    return refusing


def sum_of_outputs(run: Any) -> dict[str, float]:
    return {"sum": float(abs(run({"x": images(4)})["y"]).sum())}


@pytest.mark.parametrize("target", ["trt", "rtx"])
def test_what_is_built_is_what_was_verified_and_written(
    cnn: Model, tmp_path: Path, builder: Refusing, target: str
) -> None:
    builder.refused = {"c1", "y"}
    result = quantized(cnn, tmp_path, backend="auto", target=target, evaluate=sum_of_outputs)
    assert len(builder.int8_models) == 3
    assert (tmp_path / "model.int8.onnx").read_bytes() == builder.int8_models[-1]
    assert load_recipe(tmp_path / "recipe.yaml").nodes_to_exclude == ("c1", "y")
    assert not {"c1", "y"} & {node.output for node in result.report.nodes if node.is_int8}
    assert any("no INT8 implementation for 'c1', 'y'" in warning for warning in result.warnings)
    assert [engine.refused_nodes for engine in result.report.engines] == [(), ("c1", "y")]
    alone = quantized(cnn, tmp_path / "alone", target=target, evaluate=sum_of_outputs, nodes_to_exclude=["c1", "y"])
    assert (alone.metrics, alone.verdict) == (result.metrics, result.verdict)
    trt_ptq.quantize_model(cnn.path, tmp_path / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == builder.int8_models[-1]


def test_a_builder_that_refuses_something_else_leaves_the_verified_model(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: EngineSpec, _backend: str) -> EngineManifest:
        if spec.precision == "int8":
            raise UnsupportedLayerError(f"{spec.onnx}: no implementation", "/another/Node")
        return manifest(spec)

    monkeypatch.setattr("trt_ptq.pipeline.engine_step.build_engine", refuse)
    result = quantized(cnn, tmp_path, backend="auto")
    assert str(result.engine_error) == f"{tmp_path / 'model.int8.onnx'}: no implementation"
    assert load_recipe(tmp_path / "recipe.yaml").nodes_to_exclude == ()


def test_it_gives_up_after_five_more_builds(tmp_path: Path, builder: Refusing) -> None:
    names = ["x", *(f"c{index}" for index in range(MAX_BUILDS_AGAIN + 2))]
    nodes = [helper.make_node("Conv", [read, f"w{name}"], [name]) for read, name in pairwise(names)]
    weights = [weight(f"w{name}", CHANNELS, CHANNELS, 1, 1) for name in names[1:]]
    chain = write(tmp_path / "chain.onnx", nodes, weights, [image_input()], [names[-1]])
    builder.refused = set(names[1:])
    result = quantized(chain, tmp_path / "out", backend="auto", target="trt")  # all layers in INT8
    assert len(builder.int8_models) == MAX_BUILDS_AGAIN + 1
    model = tmp_path / "out" / "model.int8.onnx"
    assert str(result.engine_error).startswith(f"{model}: no implementation (also after 'c0', 'c1', 'c2', and 2 more")
    assert model.read_bytes() == builder.int8_models[0]
    assert load_recipe(tmp_path / "out" / "recipe.yaml").nodes_to_exclude == ()


def test_build_with_a_table_does_the_same(cnn: Model, tmp_path: Path, builder: Refusing) -> None:
    builder.refused = {"c2"}
    table = trt_ptq.calibrate(cnn, [images(4)]).table("minmax")
    built = trt_ptq.build_engine(cnn.path, tmp_path / "e.engine", table=table, nodes_to_exclude="y")
    assert built.refused_nodes == ("c2",)
    trt_ptq.quantize_model(cnn.path, table, nodes_to_exclude=["y", "c2"]).save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == builder.int8_models[-1]


def test_a_model_of_another_tool_is_not_changed(cnn: Model, tmp_path: Path, builder: Refusing) -> None:
    table = trt_ptq.calibrate(cnn, [images(4)]).table("minmax")
    trt_ptq.quantize_model(cnn.path, table).save(tmp_path / "qdq.onnx")
    builder.refused = {"c2"}
    with pytest.raises(EngineError, match="no implementation"):
        trt_ptq.build_engine(tmp_path / "qdq.onnx", tmp_path / "e.engine")
    assert len(builder.int8_models) == 1
