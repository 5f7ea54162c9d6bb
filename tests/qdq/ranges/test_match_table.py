"""How the names of a table are matched with those of a model."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import TableError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.qdq.ranges.match_table import MatchReport, match_table

TINY = Path(__file__).parents[2] / "files" / "qdq" / "tiny.onnx"


@pytest.fixture(scope="module")
def graph() -> ir.Graph:
    return load_model(TINY).to_ir().graph


def report(graph: ir.Graph, *names: str, tensors_without_range: tuple[str, ...] = ()) -> MatchReport:
    return match_table(
        graph, CalibrationTable(dict.fromkeys(names, 2.0), tensors_without_range=tensors_without_range), "old.cache"
    ).report


def test_names_of_activations_match(graph: ir.Graph) -> None:
    assert report(graph, "x", "r1").matched == ("x", "r1")


def test_an_unknown_name_is_reported_with_similar_names_of_the_model(graph: ir.Graph) -> None:
    (unknown,) = report(graph, "x", "r1:0").unknown
    assert (unknown.name, unknown.similar[0]) == ("r1:0", "r1")


def test_a_tensor_with_a_range_is_not_suggested(graph: ir.Graph) -> None:
    (unknown,) = report(graph, "r1", "r1:0").unknown
    assert "r1" not in unknown.similar


def test_a_needed_tensor_without_a_range_is_reported_with_similar_names_of_the_table(graph: ir.Graph) -> None:
    missing = {tensor.name: tensor.similar for tensor in report(graph, "x", "r2:0").missing}
    assert missing == {"p1": (), "r2": ("r2:0",)}


def test_an_inferred_range_is_not_missing(graph: ir.Graph) -> None:
    found = match_table(graph, CalibrationTable({"r1": 3.0, "r2": 4.0}), "old.cache")
    assert found.table.amax["p1"] == 3.0
    assert found.report.missing == ()
    assert [tensor.name for tensor in found.report.inferred] == ["p1"]


def test_ranges_of_the_table_are_unchanged(graph: ir.Graph) -> None:
    before = {"x": 1.0, "c1": 9.0, "r1": 3.0}
    after = match_table(graph, CalibrationTable(before), "old.cache").table.amax
    assert {name: after[name] for name in before} == before


def test_entries_of_unnamed_layers_are_reported_as_such(graph: ir.Graph) -> None:
    name = "(Unnamed Layer* 7) [Convolution]_output"
    found = report(graph, "x", name)
    assert found.unnamed == (name,)
    assert found.unknown == ()


def test_names_of_weights_are_reported_as_not_activations(graph: ir.Graph) -> None:
    assert report(graph, "x", "w1").not_activations == ("w1",)


def test_an_unusable_scale_of_a_needed_tensor_is_reported_and_not_replaced(graph: ir.Graph) -> None:
    found = report(graph, "r1", "r2", tensors_without_range=("p1",))
    assert found.unusable == ("p1",)
    assert [tensor.name for tensor in found.missing] == ["p1"]


def test_an_empty_table_is_refused(graph: ir.Graph) -> None:
    with pytest.raises(TableError, match=r"^old\.cache: the table is empty"):
        report(graph)


def test_a_table_without_a_matching_name_is_refused_with_similar_names(graph: ir.Graph) -> None:
    with pytest.raises(TableError, match=r"none of its 2 names .*'r1:0' is most similar to 'r1'"):
        report(graph, "r1:0", "images")


def test_a_table_without_a_similar_name_is_refused_with_names_of_both(graph: ir.Graph) -> None:
    with pytest.raises(TableError, match=r"it has 'ZZZZZZ', the model 'a', 'c1', 'c2'; none are similar"):
        report(graph, "ZZZZZZ")


def test_a_table_of_unnamed_layers_alone_is_refused_with_the_reason(graph: ir.Graph) -> None:
    with pytest.raises(TableError, match="entries belong to unnamed layers"):
        report(graph, "(Unnamed Layer* 7) [Convolution]_output")
