"""Rows of the benchmarks are measured apart, kept, and measured again only when they have to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import all_rows, measure_apart, measure_here, selected_rows
from benchmarks.results_file import FAILED, ResultsFile, RowSpec, code_version


def row(name: str = "row", *, is_ours: bool = True) -> RowSpec:
    return RowSpec("suite", name, lambda rows: {"earlier": len(rows)}, is_ours)


def test_a_row_is_kept_until_the_code_changes(tmp_path: Path) -> None:
    assert not ResultsFile("suite", tmp_path).has(row(), "1")
    ResultsFile("suite", tmp_path).add("row", {"loss": 0.1}, "1")
    kept = ResultsFile("suite", tmp_path)
    assert kept.figures == {"row": {"loss": 0.1}}
    assert kept.has(row(), "1")
    assert not kept.has(row(), "2")
    assert not kept.has(row("another"), "1")


def test_a_row_of_a_peer_is_kept_for_any_code_unless_it_failed(tmp_path: Path) -> None:
    kept = ResultsFile("suite", tmp_path)
    kept.add("peer", {"loss": 0.1}, "1")
    kept.add("missing", {FAILED: "not installed"}, "1")
    assert kept.has(row("peer", is_ours=False), "2")
    assert not kept.has(row("missing", is_ours=False), "2")


def test_the_code_version_depends_on_the_product_alone(tmp_path: Path) -> None:
    for folder in ("trt_ptq", "calibrators", "engines", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text("1")
    version = code_version(tmp_path)
    (tmp_path / "tests" / "module.py").write_text("2")
    assert code_version(tmp_path) == version
    (tmp_path / "engines" / "module.py").write_text("2")
    assert code_version(tmp_path) != version


def test_a_row_is_measured_with_the_figures_of_earlier_ones(tmp_path: Path) -> None:
    exchange = tmp_path / "row.json"
    exchange.write_text('{"a": {}, "b": {}}')
    measure_here(row(), exchange)
    assert exchange.read_text() == '{"earlier": 2}'


def test_a_row_that_is_not_ready_in_time_says_so() -> None:
    (slow,) = selected_rows(["speed/resnet50-fused"])
    assert measure_apart(slow, {}, 0.01) == {FAILED: "not ready after 0 s"}


@pytest.mark.slow
def test_a_row_is_measured_in_a_process_of_its_own() -> None:
    (search,) = selected_rows(["speed/entropy-search"])
    (measured,) = measure_apart(search, {}, 120)["rows"]
    assert measured["target"] == "<= 1.5 ms"


@pytest.mark.slow
def test_a_row_that_raises_says_why() -> None:
    (orphan,) = selected_rows(["accuracy/magika/ours-plain"])
    failed = measure_apart(orphan, {}, 120)[FAILED]
    assert failed == "exit status 1: trt_ptq.errors.TrtPtqError: magika: FP32 was not measured"


def test_names_are_unique_and_an_unknown_one_is_refused() -> None:
    names = [row.full_name for row in all_rows()]
    assert len(set(names)) == len(names)
    with pytest.raises(SystemExit, match="no row is named speed/nothing"):
        selected_rows(["speed/nothing"])
