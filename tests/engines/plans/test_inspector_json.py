"""Plans from the engine inspector's JSON, in hand-written samples of its two layouts (tests/files/plans/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_ptq.engines.plans.datatypes import parse_dtype
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.errors import EngineError

FILES = Path(__file__).parents[2] / "files" / "plans"


def parse(text: str) -> EnginePlan:
    return EnginePlan.from_inspector(text, where="m.engine")


@pytest.fixture
def sample() -> EnginePlan:
    return parse((FILES / "inspector.trt10.json").read_text(encoding="utf-8"))


@pytest.fixture
def sample11() -> EnginePlan:
    return parse((FILES / "inspector.trt11.json").read_text(encoding="utf-8"))


def test_int8_kernels_are_those_that_compute_in_int8(sample: EnginePlan) -> None:
    assert [kernel.name for kernel in sample.kernels if kernel.precision == "int8"] == ["conv1 + relu1", "pool", "fc"]


def test_a_kernel_that_only_dequantizes_what_it_reads_is_not_in_int8(sample: EnginePlan) -> None:
    assert sample.kernels[4].precision == "float16"


def test_reformats_do_not_count_as_computing_kernels(sample: EnginePlan) -> None:
    (reformat,) = sample.reformats
    assert reformat.name == "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1"
    assert (reformat.inputs[0].dtype, reformat.outputs[0].dtype, reformat.precision) == ("float32", "int8", None)


def test_an_alias_does_nothing(sample: EnginePlan) -> None:
    alias = sample.kernels[6]
    assert (alias.works, alias.reformat, alias.precision) == (False, False, None)
    assert sample.num_kernels == len(sample.kernels) - 1


def test_a_subgraph_without_details_has_precision_unknown_and_unknown_macs(sample: EnginePlan) -> None:
    assert (sample.kernels[7].precision, sample.kernels[7].macs) == ("unknown", None)
    assert "MACs are unknown for some kernels of type Myelin: only their bytes count" in sample.warnings


def test_precisions_count_the_kernels_that_compute(sample: EnginePlan) -> None:
    assert sample.precisions() == {"int8": 3, "float16": 2, "unknown": 1}


def test_weights_and_macs_of_a_convolution_come_from_its_counts(sample: EnginePlan) -> None:
    convolution = sample.kernels[1]
    assert sum(tensor.nbytes for tensor in convolution.constants) == 9408 + 64 * 4
    assert convolution.macs == 8 * 64 * 112 * 112 * (3 * 7 * 7)
    assert convolution.nodes == ("conv1", "relu1")


def test_a_matrix_product_reads_its_weights_as_an_input(sample: EnginePlan) -> None:
    product = sample.kernels[3]
    assert (product.macs, product.bytes_moved) == (8 * 2048 * 1000, 8 * 2048 + 2048 * 1000 + 8 * 1000 * 2)


def test_inputs_are_found_among_the_bindings_of_tensorrt_10(sample: EnginePlan) -> None:
    assert sample.shapes == {"x": (8, 3, 224, 224)}


def test_the_layout_of_tensorrt_11_is_read_without_gaps(sample11: EnginePlan) -> None:
    quantize, convolution = sample11.kernels
    assert (quantize.precision, convolution.precision) == ("float16", "int8")
    assert convolution.macs == 8 * 64 * 32 * 32 * 16 * 9
    assert convolution.nodes == ("conv", "x.dequantized")
    assert (sample11.shapes, sample11.warnings) == ({"x": (8, 16, 32, 32)}, ())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Row major linear FP32", "float32"),
        ("Float", "float32"),
        ("Half", "float16"),
        ("Channel major FP16 format where channel % 4 == 0", "float16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("BFloat16", "bfloat16"),
        ("Row major linear BF16 format", "bfloat16"),
        ("UInt8", "uint8"),
        ("FP8", "float8"),
        ("Int64", "int64"),
        ("Something New", "something new"),
    ],
)
def test_types_are_read_in_long_and_in_short_form(written: str, read: str) -> None:
    assert parse_dtype(written) == read


def test_a_tensor_of_an_unknown_type_is_named_and_counts_no_bytes() -> None:
    tensor = [{"Name": "t", "Dimensions": [4, 4], "Format/Datatype": "Posit16"}]
    plan = parse(json.dumps({"Layers": [{"Name": "l", "LayerType": "kgen", "Inputs": tensor, "Outputs": tensor}]}))
    assert (plan.bytes_moved, plan.warnings) == (0, ("tensors of unknown types count as 0 bytes: posit16",))


def test_an_engine_with_only_the_names_of_its_layers_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        EngineError, match=r"m\.engine: .* contains only the names of its 2 layers; build it with trt-ptq"
    ):
        parse('{"Layers": ["conv1", "conv2"], "Bindings": ["x"]}')


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": [{"Name": "conv"}]}', '{"Layers": 3}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match=r"m\.engine: unexpected output of the engine inspector"):
        parse(text)
