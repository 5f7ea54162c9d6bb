"""Selecting the nodes to exclude from quantization."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from tests.networks import residual_cnn
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.qdq.node_selection import select_nodes
from trt_ptq.qdq.plan import plan_quantization

ALL = ("c1", "c2", "a", "p", "y")


@pytest.fixture
def graph(tmp_path: Path) -> ir.Graph:
    """The residual CNN with node names like those of PyTorch's exporter: /stem/Conv, /block/Conv, /head/Gemm, ..."""
    path = residual_cnn(tmp_path / "m.onnx")
    proto = onnx.load(path)
    modules = {"c1": "stem", "r1": "stem", "y": "head", "f": "head"}
    for node in proto.graph.node:
        node.name = f"/{modules.get(node.output[0], 'block')}/{node.op_type}"
    onnx.save(proto, path)
    return load_model(path).to_ir().graph


def test_every_candidate_is_selectable(graph: ir.Graph) -> None:
    assert tuple(node.output for node in plan_quantization(graph).nodes) == ALL


@pytest.mark.parametrize(
    ("exclude", "excluded"),
    [
        ((), ()),
        (("/stem/Conv",), ("c1",)),
        (("c2",), ("c2",)),
        (("Conv",), ("c1", "c2")),
        (("/block/*",), ("c2", "a", "p")),
        (("c?",), ("c1", "c2")),
        (("y", "c1"), ("c1", "y")),
        (("c1", "Conv", "/stem/*"), ("c1", "c2")),
        (("*",), ALL),
    ],
    ids=["nothing", "node name", "output", "op type", "glob of nodes", "glob of outputs", "order", "overlap", "all"],
)
def test_matching_nodes_are_excluded(graph: ir.Graph, exclude: tuple[str, ...], excluded: tuple[str, ...]) -> None:
    assert select_nodes(graph, exclude=exclude) == excluded


@pytest.mark.parametrize(
    ("include", "exclude", "excluded"),
    [
        (("Conv",), (), ("a", "p", "y")),
        (("/block/*", "y"), (), ("c1",)),
        (("Conv",), ("c1",), ("c1", "a", "p", "y")),
        (("*",), (), ()),
    ],
)
def test_only_included_nodes_are_quantized(
    graph: ir.Graph, include: tuple[str, ...], exclude: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    assert select_nodes(graph, include=include, exclude=exclude) == excluded


@pytest.mark.parametrize(
    ("pattern", "similar"),
    [("/stem/Conv1", "/stem/Conv"), ("conv", "Conv"), ("c22", "c2"), ("/stem/Relu", "/stem/Conv")],
    ids=["node name", "case", "output", "not quantizable"],
)
def test_an_unknown_name_is_refused_with_similar_ones(graph: ir.Graph, pattern: str, similar: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^`nodes_to_exclude`: no quantizable node matches '{pattern}' .*'{similar}'"
    ):
        select_nodes(graph, exclude=[pattern])


def test_a_pattern_without_a_match_is_refused(graph: ir.Graph) -> None:
    with pytest.raises(UsageError, match=r"^`nodes_to_include`: no quantizable node matches '/decoder/\*'"):
        select_nodes(graph, include=["Conv", "/decoder/*"])


def test_the_selection_is_what_a_plan_excludes(graph: ir.Graph) -> None:
    plan = plan_quantization(graph, nodes_to_exclude=select_nodes(graph, exclude=["Conv"]))
    assert [node.output for node in plan.nodes if node.reason == "excluded from quantization"] == ["c1", "c2"]


def test_a_name_with_glob_characters_matches_itself(tmp_path: Path) -> None:
    path = residual_cnn(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node[0].name = "layers[0]"
    onnx.save(proto, path)
    assert select_nodes(load_model(path).to_ir().graph, exclude=["layers[0]"]) == ("c1",)
