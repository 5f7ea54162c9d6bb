"""What the commands print."""

from __future__ import annotations

import json
import math

import pytest

from trt_ptq.cli.console import print_json, print_table


def test_json_is_standard_where_a_number_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """The SQNR of equal outputs is infinite."""
    print_json({"sqnr_db": math.inf, "cosine": math.nan, "top1": None, "max_abs": 0.5})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"sqnr_db": "Infinity", "cosine": "NaN", "top1": None, "max_abs": 0.5}


def test_a_table_too_wide_for_the_output_keeps_its_last_column(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = [f"a_metric_with_a_long_name_{index}" for index in range(4)]
    print_table(["", *metrics, "last"], [["INT8", *"12345"]])
    lines = capsys.readouterr().out.splitlines()
    assert all(name in lines[1] for name in (*metrics, "last"))
    assert "5" in lines[3]
