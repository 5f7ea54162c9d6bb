"""From the name of a builder's layer to the INT8 nodes that it computes."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from tests.networks import CHANNELS, image_input, weight, write
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.onnx_io.load import load_model
from trt_ptq.qdq.factored import factor_weights
from trt_ptq.qdq.insert import QdqModel, insert_qdq
from trt_ptq.qdq.layer_nodes import int8_nodes_of_layer


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> QdqModel:
    """/first/Conv -> SiLU -> a convolution without a name -> residual Add with the SiLU."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="/first/Conv"),
        helper.make_node("Sigmoid", ["c1"], ["s"], name="/act/Sigmoid"),
        helper.make_node("Mul", ["c1", "s"], ["m"], name="/act/Mul"),
        helper.make_node("Conv", ["m", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "m"], ["y"], name="/Add"),
    ]
    weights = [weight(name, CHANNELS, CHANNELS, 1, 1) for name in ("w1", "w2")]
    path = write(tmp_path_factory.mktemp("model") / "m.onnx", nodes, weights, [image_input()], ["y"])
    table = CalibrationTable({"x": 1.0, "c1": 1.0, "m": 1.0, "c2": 1.0, "y": 1.0})
    return insert_qdq(load_model(path), table)


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        ("/first/Conv", ("c1",)),
        ("w1 + w1.dequantized + /first/Conv + PWN(PWN(/act/Sigmoid), /act/Mul)", ("c1",)),
        ("node_of_c2", ("c2",)),
        ("node_of_c2 + /Add", ("c2",)),
        ("/Add", ("y",)),
        ("x.quantized_clone_0", ("c1",)),
        ("w2.dequantized", ("c2",)),
        ("{ForeignNode[x.quantized.../Add]}", ("c1", "c2")),
        ("PWN(PWN(/act/Sigmoid), /act/Mul)", ()),
        ("(Unnamed Layer* 8) [Convolution]", ()),
    ],
)
def test_the_int8_nodes_behind_a_layer(model: QdqModel, layer: str, nodes: tuple[str, ...]) -> None:
    assert int8_nodes_of_layer(layer, model) == nodes


def test_in_the_factored_form_a_convolution_is_found_with_what_stands_behind_it(model: QdqModel) -> None:
    assert factor_weights(model, None).factored
    for layer in ("/first/Conv", "/first/Conv + c1", "c1"):
        assert int8_nodes_of_layer(layer, model) == ("c1",)


def test_in_float16_an_output_is_found_by_the_node_before_its_cast(model: QdqModel) -> None:
    converted = QdqModel(convert_to_float16(model.model, {}).model, model.plan)
    assert int8_nodes_of_layer("node_of_c2 + /Add", converted) == ("c2",)
    assert int8_nodes_of_layer("/Add", converted) == ("y",)


@pytest.mark.parametrize("name", ["/first/Conv", ""])
def test_a_convolution_whose_ratios_are_in_the_next_one_is_found_though_its_output_is_renamed(
    tmp_path: Path, name: str
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name=name),
        helper.make_node("Relu", ["c1"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"]),
    ]
    weights = [weight(name, CHANNELS, CHANNELS, 1, 1) for name in ("w1", "w2")]
    path = write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"])
    folded = insert_qdq(load_model(path), CalibrationTable({"x": 1.0}), ("y",))
    assert factor_weights(folded, None).folded == ("c1",)
    assert int8_nodes_of_layer(name or "node_of_c1", folded) == ("c1",)
