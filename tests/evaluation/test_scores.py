"""Which outputs hold scores of classes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import NodeProto, helper

from tests.networks import weight, write
from trt_ptq.evaluation.scores import score_outputs

LINEAR = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]


def scores(path: Path, nodes: list[NodeProto], output: str = "y", rank: int = 2, opset: int = 17) -> frozenset[str]:
    shape: list[str | int | None] = ["n", *["t"] * (rank - 2), 16]
    values = [helper.make_tensor_value_info(name, 1, shape) for name in ("x", output)]
    model = onnx.load(write(path / "m.onnx", nodes, [weight("w", 16, 16), weight("b", 16)], values[:1], [], opset))
    model.graph.output.append(values[1])
    return score_outputs(model)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_linear_layer_at_the_end_gives_scores(tmp_path: Path, rank: int) -> None:
    assert scores(tmp_path, LINEAR, rank=rank) == {"y"}
    softmax = [*LINEAR, helper.make_node("Softmax", ["y"], ["p"]), helper.make_node("Cast", ["p"], ["out"], to=1)]
    assert scores(tmp_path, softmax, "out", rank=rank) == {"out"}
    assert scores(tmp_path, softmax, "y", rank=rank) == {"y"}  # logits that a Softmax reads


@pytest.mark.parametrize(
    "last",
    [
        helper.make_node("Sigmoid", ["y"], ["z"]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("LayerNormalization", ["y", "b"], ["z"]),
        helper.make_node("LpNormalization", ["y"], ["z"]),
        helper.make_node("Softmax", ["y"], ["z"], axis=0),
        helper.make_node("MatMul", ["y", "y"], ["z"]),
        helper.make_node("Add", ["y", "x"], ["z"]),
    ],
    ids=lambda node: node.op_type,
)
def test_other_outputs_are_no_scores(tmp_path: Path, last: NodeProto) -> None:
    assert not scores(tmp_path, [*LINEAR, last], "z")


def test_a_feature_map_is_no_scores(tmp_path: Path) -> None:
    assert not scores(tmp_path, LINEAR, rank=4)


def test_a_linear_layer_that_is_read_on_is_no_scores(tmp_path: Path) -> None:
    assert not scores(tmp_path, [*LINEAR, helper.make_node("Relu", ["y"], ["z"])])


@pytest.mark.parametrize("name", ["image_embeds", "pred_boxes", "last_hidden_state", "pooler_output", "features"])
def test_a_name_may_speak_of_another_quantity(tmp_path: Path, name: str) -> None:
    assert not scores(tmp_path, [helper.make_node("Gemm", ["x", "w"], [name])], name)


@pytest.mark.parametrize(("opset", "expected"), [(11, set()), (13, {"z"})])
def test_the_default_axis_of_a_softmax_depends_on_the_opset(tmp_path: Path, opset: int, expected: set[str]) -> None:
    assert scores(tmp_path, [*LINEAR, helper.make_node("Softmax", ["y"], ["z"])], "z", 3, opset) == expected
