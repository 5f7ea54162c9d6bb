"""Plans from logs that TensorRT-RTX wrote when it built five models (tests/files/plans/README.md)."""

from __future__ import annotations

import pytest

from tests.engines.plans.recorded import MODELS, recorded_log, recorded_plan
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.rtx_log import parse_nodes
from trt_ptq.errors import EngineError


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("model", MODELS)
def test_every_kernel_of_a_real_log_is_read_without_gaps(model: str, precision: str) -> None:
    plan = recorded_plan(model, precision)
    assert plan.warnings == ()
    assert len(plan.kernels) == recorded_log(model, precision).count("LayerType:")
    assert all(kernel.bytes_written for kernel in plan.kernels if kernel.works)
    assert plan.shapes
    assert not plan.dynamic


@pytest.mark.parametrize("model", MODELS)
def test_int8_runs_only_in_the_int8_engine(model: str) -> None:
    assert "int8" not in recorded_plan(model, "fp16").precisions()
    assert "int8" in recorded_plan(model, "int8").precisions()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_macs_of_an_encoder_are_those_of_its_arithmetic(precision: str) -> None:
    # Six layers, each with 4 products of 384 x 384 and 2 of 384 x 1536 for a token, and attention over 128 tokens.
    tokens, layers, width = 8 * 128, 6, 384
    assert recorded_plan("minilm", precision).macs == tokens * layers * (12 * width**2 + 2 * 128 * width)


def test_int8_pads_the_channels_of_depthwise_convolutions_and_so_computes_more() -> None:
    assert recorded_plan("recogniser", "int8").macs > recorded_plan("recogniser", "fp16").macs
    assert recorded_plan("resnet50", "int8").macs == recorded_plan("resnet50", "fp16").macs


def test_a_gathered_table_is_not_read_as_a_whole() -> None:
    gather = recorded_plan("minilm", "fp16").kernels[0]
    table = max(gather.constants, key=lambda tensor: tensor.nbytes)
    assert table.shape == (30522, 384)
    assert gather.bytes_read < table.nbytes


def test_kernels_name_the_nodes_that_were_fused_into_them() -> None:
    plan = recorded_plan("resnet50", "fp16")
    assert any({"node_Conv_762", "node_add_1"} & set(kernel.nodes) and kernel.macs for kernel in plan.kernels)


def test_a_plan_is_the_same_after_a_round_trip_through_json() -> None:
    plan = recorded_plan("detector", "int8")
    assert EnginePlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_log_that_only_contains_the_message_among_others_is_read() -> None:
    log = "[V] Parsing node\n" + recorded_log("magika", "int8") + "\n[V] Engine generation completed"
    assert EnginePlan.from_rtx_log(log).kernels == recorded_plan("magika", "int8").kernels


def test_a_line_that_cannot_be_read_is_named_and_left_out() -> None:
    lines = recorded_log("magika", "int8").splitlines()
    lines[3] = lines[3].replace("Dimensions: [", "Extent: [", 1)
    plan = EnginePlan.from_rtx_log("\n".join(lines))
    assert len(plan.kernels) == recorded_log("magika", "int8").count("LayerType:") - 1
    (warning,) = plan.warnings
    assert warning.startswith("line 4 of the builder's log could not be read: Name: ")


def test_a_log_without_kernels_says_how_to_get_them() -> None:
    with pytest.raises(EngineError, match=r"has no list of kernels .* profiling verbosity DETAILED"):
        EnginePlan.from_rtx_log("[V] Parsing node: conv1\n")


def test_a_log_of_another_format_is_refused() -> None:
    log = recorded_log("magika", "int8").replace("Inputs: [", "Reads: [")
    with pytest.raises(
        EngineError, match=r"no kernel in this log of TensorRT-RTX could be read: its format is another"
    ):
        EnginePlan.from_rtx_log(log)


def test_dynamic_sizes_are_not_guessed() -> None:
    plan = EnginePlan.from_rtx_log(recorded_log("magika", "int8").replace("Dimensions: [8,", "Dimensions: [-1,"))
    assert plan.dynamic
    assert any("shapes are dynamic" in warning for warning in plan.warnings)
    for kernel in plan.kernels:
        if any(tensor.size is None for tensor in (*kernel.inputs, *kernel.outputs)):
            assert not kernel.macs


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("", ()),
        ("[ONNX Layer: a][ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: a]\x1e[ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: layers[0].conv][ONNX Layer: x[1]]", ("layers[0].conv", "x[1]")),
        ("[ONNX Layer: conv]__gemm_from_conv1x1", ("conv",)),
        ("[ONNX Layer: node_of_y]", ("y",)),
    ],
)
def test_names_of_nodes_may_have_brackets(metadata: str, nodes: tuple[str, ...]) -> None:
    assert parse_nodes(metadata) == nodes
