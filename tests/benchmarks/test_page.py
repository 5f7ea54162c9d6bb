"""docs/benchmarks.md says what the JSON files in benchmarks/results say."""

from __future__ import annotations

from benchmarks import page


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run: python -m benchmarks.page"


def test_a_failed_row_and_a_missing_one_show_no_figure() -> None:
    assert page.accuracy_cell({"failed": "out of memory"}) == "failed"
    assert page.accuracy_cell(None) == ""


def test_a_row_shows_loss_and_fraction_of_macs() -> None:
    row = {"metrics": {"accuracy": 0.9}, "loss": 0.0123, "samples": 8, "int8_fraction_of_macs": 0.5}
    assert page.accuracy_cell(row) == "1.23%, 50%"
