"""docs/benchmarks.md says what the JSON files in benchmarks/results say."""

from __future__ import annotations

from benchmarks import page


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run: python -m benchmarks.page"


def test_a_failed_row_and_a_missing_one_show_no_figure() -> None:
    failed = {"failed": "out of memory", "metrics": None, "loss": None, "samples": None, "int8_fraction_of_macs": None}
    assert page._cell(failed) == "failed"
    assert page._cell(None) == ""


def test_a_row_shows_loss_and_fraction_of_macs() -> None:
    row = {"failed": "", "metrics": {"accuracy": 0.9}, "loss": 0.0123, "samples": 8, "int8_fraction_of_macs": 0.5}
    assert page._cell(row) == "1.23%, 50%"
