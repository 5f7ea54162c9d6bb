"""Parsing the engine inspector's JSON. files/inspector.json was written by hand, in the layout that NVIDIA documents
and its users publish. The output of real engines is tested on a GPU (tests/gpu)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_ptq.engines.running.inspector import Inspection, parse_inspection
from trt_ptq.errors import EngineError

SAMPLE = Path(__file__).parents[2] / "files" / "inspector.json"


@pytest.fixture
def sample() -> Inspection:
    return parse_inspection(SAMPLE.read_text(encoding="utf-8"), "sample.engine")


def names(layers: object) -> list[str]:
    assert isinstance(layers, tuple)
    return [layer.name for layer in layers]


def test_int8_layers_are_those_that_compute_in_int8(sample: Inspection) -> None:
    assert names(sample.int8) == ["conv1 + relu1", "pool", "fc"]


def test_a_layer_that_only_dequantizes_what_it_reads_is_not_in_int8(sample: Inspection) -> None:
    softmax = sample.layers[4]
    assert (softmax.inputs, softmax.outputs, softmax.precision) == (("int8",), ("fp16",), "fp16")


def test_reformats_do_not_count_as_computing_layers(sample: Inspection) -> None:
    assert names(sample.reformats) == ["Reformatting CopyNode for Input Tensor 0 to conv1 + relu1"]
    assert (sample.reformats[0].inputs, sample.reformats[0].outputs) == (("fp32",), ("int8",))


def test_an_alias_neither_computes_nor_reformats(sample: Inspection) -> None:
    reshape = sample.layers[6]
    assert (reshape.precision, reshape.reformat) == (None, False)


def test_a_subgraph_without_details_has_precision_unknown(sample: Inspection) -> None:
    assert sample.layers[7].precision == "unknown"


def test_precisions_count_the_layers_that_compute(sample: Inspection) -> None:
    assert sample.precisions() == {"int8": 3, "fp16": 2, "unknown": 1}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Row major linear FP32", "fp32"),
        ("Float", "fp32"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 4 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16 format", "bf16"),
        ("Int64", "int64"),
        ("Something New", "something new"),
    ],
)
def test_types_are_read_in_long_and_in_short_form(written: str, read: str) -> None:
    tensor = [{"Name": "t", "Format/Datatype": written}]
    text = json.dumps({"Layers": [{"Name": "l", "LayerType": "kgen", "Inputs": tensor, "Outputs": tensor}]})
    assert parse_inspection(text, "m.engine").layers[0].inputs == (read,)


def test_an_engine_with_only_the_names_of_its_layers_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        EngineError, match=r"m\.engine: .* contains only the names of its 2 layers; build it with trt-ptq"
    ):
        parse_inspection('{"Layers": ["conv1", "conv2"], "Bindings": ["x"]}', "m.engine")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": [{"Name": "conv"}]}', '{"Layers": 3}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="unexpected output of the engine inspector"):
        parse_inspection(text, "m.engine")
