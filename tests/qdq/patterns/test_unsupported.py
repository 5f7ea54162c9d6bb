"""Nodes that are reported as unsupported and left unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.networks import CHANNELS, image_input
from tests.qdq.patterns.converted import PADS, Convert, conv, node, weights_of
from trt_ptq.onnx_io.load import load_model
from trt_ptq.qdq.plan import plan_quantization


def test_weighted_nodes_in_a_body_are_unchanged_and_reported(convert: Convert) -> None:
    def branch(name: str) -> onnx.GraphProto:
        body = [node("Conv", ["c", "w_c"], [f"{name}_y"], **PADS)]
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph(body, name, [], [out])

    nodes = [
        conv("x", "c"),
        node("If", ["yes"], ["y"], then_branch=branch("then"), else_branch=branch("else")),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    result = convert(nodes, [*weights_of("c"), yes])
    assert {(node.output, node.reason) for node in result.plan.unsupported} == {
        ("then_y", "inside If 'y'"),
        ("else_y", "inside If 'y'"),
    }
    assert result.pairs == {("x", "c")}
    assert "w_c" in {tensor.name for tensor in onnx.load(result.path).graph.initializer}  # the bodies read it
    assert result.noise < 1e-3


def test_custom_ops_are_unchanged_and_reported(tmp_path: Path) -> None:
    nodes = [
        conv("x", "c"),
        node("Warp", ["c"], ["warped"], domain="com.example"),
        conv("warped", "d"),
        node("Relu", ["d"], ["y"]),
    ]
    known = [helper.make_tensor_value_info("warped", TensorProto.FLOAT, ["n", CHANNELS, 8, 8])]
    graph = helper.make_graph(
        nodes,
        "custom",
        [image_input()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CHANNELS, 8, 8])],
        weights_of("c", "d"),
        value_info=known,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    plan = plan_quantization(load_model(tmp_path / "m.onnx").to_ir().graph)
    assert [(node.output, node.reason) for node in plan.unsupported] == [
        (
            "warped",
            "custom op com.example::Warp is not supported; ONNX Runtime cannot run it, so models are compared by its "
            "inputs",
        )
    ]
    assert [node.output for node in plan.nodes if node.is_int8] == ["c", "d"]
