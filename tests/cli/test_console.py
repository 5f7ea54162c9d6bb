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


def test_a_table_that_fits_keeps_its_last_column(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich would narrow the name below its least width, and cut as much off the last column."""
    head = ["tensor", "min", "max", "amax", "scale", "clipped", "asym. scale", "zero pt"]
    print_table(head, [["/f/f.1/Relu_output_0", "0", "1.101", "0.8452", "0.006655", "0.100%", "0.004318", "-128"]])
    lines = capsys.readouterr().out.splitlines()
    assert {len(line) for line in lines} == {80}
    assert "-128" in lines[4]
    assert lines[4].endswith("│")
