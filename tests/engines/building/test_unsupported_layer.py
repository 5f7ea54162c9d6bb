"""The layer without an implementation, in the forms of public build logs of TensorRT 8 to 10."""

from __future__ import annotations

import pytest

from trt_ptq.engines.building.unsupported_layer import unsupported_layer

FUSED = "m.0.weight + m.0.weight_QuantizeLinear + /m.0/Conv + PWN(PWN(/m.0/act/Sigmoid), /m.0/act/Mul)"
FORMS = {
    "10: Could not find any implementation for node 002_convolutional.": "002_convolutional",
    "10: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any implementation for "
    f"node {FUSED}.)": FUSED,
    "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[/a/Slice_4_output_0[Constant].../b/Reshape_6]}.)": (
        "{ForeignNode[/a/Slice_4_output_0[Constant].../b/Reshape_6]}"
    ),
    "[optimizer.cpp::getFormatRequirements::3300] Error Code 2: Internal Error (Assertion "
    "!n->candidateRequirements.empty() failed. No supported formats for /rotary/Unsqueeze_1, please check the TensorRT "
    "operator doc (https://docs.nvidia.com/x.html) for supported formats.)": "/rotary/Unsqueeze_1",
    "9: [pluginV2Builder.cpp::reportPluginError::23] Error Code 9: Internal Error (LayerNorm_4: could not find any "
    "supported formats consistent with input/output data types)": "LayerNorm_4",
}


@pytest.mark.parametrize(("message", "layer"), FORMS.items(), ids=[form[:40] for form in FORMS])
def test_the_layer_is_read_from_the_message(message: str, layer: str) -> None:
    assert unsupported_layer(["9: Skipping tactic 0x0 due to exception", message]) == layer


@pytest.mark.parametrize(
    "message",
    [
        "Could not find any implementation for node c1 due to insufficient workspace. See verbose log for sizes.",
        "2: All of the candidates were removed, which points to the node being incorrectly marked as an int8 node.",
        "no reason given",
    ],
)
def test_other_failures_name_no_layer(message: str) -> None:
    assert unsupported_layer([message]) is None
